"""Prompts as features of UMT5, as Wan2.1 was trained on them."""

import html
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5EncoderModel

from helios_model.pretrained import load_pretrained
from helios_model.weights import BundleError

TOKENS = 512
_STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


class TextEncoder(nn.Module):
    """Prompts to features `[B, tokens, dim]`; UMT5-XXL has dim 4096."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: Any, *, tokens: int = TOKENS) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.tokenizer = tokenizer
        self.tokens = tokens

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        tokens: int = TOKENS,
    ) -> Self:
        """The encoder in the folders `text_encoder` and `tokenizer` of Wan2.1 in diffusers' format.

        Raises:
            BundleError: a file is missing, damaged, or of another model.
        """
        weights, words = Path(folder) / "text_encoder", Path(folder) / "tokenizer"
        model: Any = load_pretrained(
            UMT5EncoderModel,
            weights,
            stem="model",
            config={"model_type": "umt5"},
            options={"dtype": dtype},
            may_have=("decoder.", "lm_head."),
        )
        tokenizer = _load_tokenizer(words)
        if len(tokenizer) > model.config.vocab_size:
            raise BundleError(
                f"{words} has {len(tokenizer)} tokens, expected at most vocab_size = {model.config.vocab_size} of "
                f"{weights / 'config.json'}"
            )
        return cls(model, tokenizer, tokens=tokens).to(device)

    @property
    def dim(self) -> int:
        return int(self.model.config.d_model)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Features `[B, tokens, dim]`, zeros beyond each prompt's end token; a longer prompt is cut to `tokens`.

        Raises:
            ValueError: no prompts.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts is {prompts!r}; expected a list of at least one prompt")
        batch = self.tokenizer(
            [clean(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.tokens,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids_BN, mask_BN = batch.input_ids.to(self.model.device), batch.attention_mask.to(self.model.device)
        features_BNE: Tensor = self.model(input_ids=ids_BN, attention_mask=mask_BN).last_hidden_state
        return features_BNE.masked_fill(mask_BN[..., None] == 0, 0)


def clean(prompt: str) -> str:
    """A prompt as Wan2.1's captions are written: entities resolved, quotes straight, one space between words.

    Wan's own code repairs text with `ftfy`, diffusers does where that is installed. What it would do to text that was
    decoded rightly is done here; it is left out so that a prompt has the same features on every machine.
    """
    text = html.unescape(html.unescape(prompt))
    return " ".join(unicodedata.normalize("NFC", text).translate(_STRAIGHT).split())


def _load_tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise BundleError(f"{folder} is missing")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged tokenizer.json
        raise BundleError(f"{folder} holds no tokenizer: {error}") from error
