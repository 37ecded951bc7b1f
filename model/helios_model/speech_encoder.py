"""Speech as features of wav2vec 2.0, two to a video frame, and the tokens that each latent frame listens to.

A feature of the convolutions sees 400 samples and the next begins 320 later, so (S - 400) // 320 + 1 come of S
samples. 40 samples of silence on each side make that two to a frame of 640 samples, each in the middle of its 20 ms:
nothing is left to interpolate.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from helios_model.audio import SAMPLE_RATE, SAMPLES_PER_FRAME
from helios_model.pretrained import load_pretrained
from helios_model.weights import BundleError

STRIDE = 320
FIELD = 400
PER_FRAME = SAMPLES_PER_FRAME // STRIDE
WINDOW = 1000
"""Tokens that attention spans: 20 s, the longest that wav2vec 2.0 was trained on (its section 4.2)."""
CONTEXT = 200
"""Tokens of a window that are only there to be listened to, on each side that is not an end of the sound."""
_LAYERS = 4
_PIECE = 20_000


class SpeechEncoder(nn.Module):
    """Sound to features: the mean of the last four layers' hidden states, each scaled to unit variance.

    Wan-S2V learns a weighting of all 25 hidden states, Hallo3 takes all of them, StableAvatar the last one. The last
    alone depends on how a checkpoint was trained: fine-tuned for recognition it is the most phonetic, not fine-tuned it
    is back at the acoustics (Pasad et al. 2021, "Layer-wise analysis"). A mean keeps one vector a token; each layer is
    scaled first because in the large models hidden states grow with depth.

    The convolutions are exact for any length (their norm takes its statistics of the whole clip). Attention spans
    `window` tokens, of which the middle is kept, so memory does not grow with the clip; up to `window` tokens the
    result is that of the whole clip at once. Beyond that, windows of another size move features by less than 5% (root
    mean square, on a checkpoint of random weights).
    """

    def __init__(self, model: Wav2Vec2Model, *, normalise: bool, window: int = WINDOW, context: int = CONTEXT) -> None:
        """`normalise`: whether the model expects sound of zero mean and unit variance."""
        super().__init__()
        if not 0 <= 2 * context < window:
            raise ValueError(f"window {window}, context {context}: expected 0 <= 2 * context < window")
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.normalise = normalise
        self.window, self.context = window, context

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Self:
        """The encoder in a folder with config.json, preprocessor_config.json and model.safetensors.

        Raises:
            BundleError: a file is missing, damaged, or of another model.
        """
        folder = Path(folder)
        model: Any = load_pretrained(
            Wav2Vec2Model,
            folder,
            stem="model",
            config={"model_type": "wav2vec2"},
            options={"dtype": dtype},
            may_lack=("masked_spec_embed",),
            may_have=("lm_head.", "quantizer.", "project_q.", "project_hid."),
        )
        field, stride = _arithmetic(model.config)
        if (field, stride) != (FIELD, STRIDE):
            raise BundleError(
                f"{folder / 'config.json'}: features of {field} samples, {stride} apart; expected {FIELD} and {STRIDE}"
            )
        try:
            settings = Wav2Vec2FeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(f"{folder / 'preprocessor_config.json'} cannot be read: {error}") from error
        if settings.sampling_rate != SAMPLE_RATE:
            raise BundleError(
                f"{folder / 'preprocessor_config.json'}: sampling_rate is {settings.sampling_rate}, "
                f"expected {SAMPLE_RATE}"
            )
        return cls(model, normalise=settings.do_normalize).to(device)

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)

    def encode(self, audio_S: Tensor, latents: int, tokens: int) -> Tensor:
        """What the latent frames of a clip hear, `[1, latents, tokens, K]`; see `features` and `speech_windows`."""
        return speech_windows(self.features(audio_S, 4 * (latents - 1) + 1), 0, latents, tokens)

    @torch.no_grad()
    def features(self, audio_S: Tensor, frames: int) -> Tensor:
        """Features of `frames` video frames.

        Args:
            audio_S: floating point, 16 kHz; what is missing to `frames * 640` samples counts as silence.
            frames: at 25 a second.

        Returns:
            `[1, 2 * frames, K]`, float32.

        Raises:
            ValueError: sound of another shape or type, or no frames.
        """
        if audio_S.ndim != 1 or not audio_S.is_floating_point() or not len(audio_S) or frames < 1:
            raise ValueError(
                f"audio_S is {audio_S.dtype} {list(audio_S.shape)} for {frames} frames; expected floating point [S] "
                f"with S >= 1, for at least one frame"
            )
        padded_S = self._prepared(audio_S, frames)
        statistics = self._statistics(padded_S)
        parts = []
        for low, start, stop, high in spans(PER_FRAME * frames, self.window, self.context):
            heard_S = padded_S[low * STRIDE : (high - 1) * STRIDE + FIELD]
            parts.append(self._window(heard_S, statistics)[:, start - low : stop - low])
        return torch.cat(parts, dim=1)

    def _prepared(self, audio_S: Tensor, frames: int) -> Tensor:
        """Scaled as transformers' feature extractor does, then silence around it."""
        heard_S = audio_S[: frames * SAMPLES_PER_FRAME].to(self.model.device).float()
        if self.normalise:
            heard_S = (heard_S - heard_S.mean()) / (heard_S.var(correction=0) + 1e-7).sqrt()
        margin = (FIELD - STRIDE) // 2
        missing = frames * SAMPLES_PER_FRAME - len(heard_S)
        return nn.functional.pad(heard_S, (margin, missing + margin)).to(self.model.dtype)

    def _statistics(self, padded_S: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and 1 / deviation of the first convolution over the clip, where a norm takes them (base models)."""
        if self.model.config.feat_extract_norm != "group":
            return None
        first = self.model.feature_extractor.conv_layers[0]
        field, stride = self.model.config.conv_kernel[0], self.model.config.conv_stride[0]
        count = (len(padded_S) - field) // stride + 1
        totals_2C = torch.zeros(2, first.out_conv_dim, dtype=torch.float64, device=padded_S.device)
        for low, high in pairwise([*range(0, count, _PIECE), count]):
            piece_CN = first.conv(padded_S[None, low * stride : (high - 1) * stride + field]).double()
            totals_2C += torch.stack([piece_CN.sum(1), piece_CN.square().sum(1)])
        mean_C, square_C = totals_2C / count
        scale_C = (square_C - mean_C.square() + first.layer_norm.eps).rsqrt()
        return mean_C[:, None].float(), scale_C[:, None].float()

    def _window(self, heard_S: Tensor, statistics: tuple[Tensor, Tensor] | None) -> Tensor:
        """Wav2Vec2Model's forward on one stretch of sound, with the statistics of all of it: `[1, N, K]`."""
        first, *rest = self.model.feature_extractor.conv_layers
        if statistics is None:
            x_1CN = first(heard_S[None, None])
        else:
            mean_C1, scale_C1 = statistics
            norm = first.layer_norm
            x_1CN = (first.conv(heard_S[None, None]).float() - mean_C1) * scale_C1
            x_1CN = first.activation((x_1CN * norm.weight[:, None] + norm.bias[:, None]).to(heard_S.dtype))
        for layer in rest:
            x_1CN = layer(x_1CN)
        x_1NK, _ = self.model.feature_projection(x_1CN.transpose(1, 2))
        encoder = self.model.encoder
        stable = self.model.config.do_stable_layer_norm
        x_1NK = x_1NK + encoder.pos_conv_embed(x_1NK)
        if not stable:
            x_1NK = encoder.layer_norm(x_1NK)
        states = []
        for layer in encoder.layers:
            x_1NK = layer(x_1NK)
            states.append(x_1NK)
        if stable:
            states[-1] = encoder.layer_norm(x_1NK)
        scaled = [nn.functional.layer_norm(state_1NK.float(), (self.dim,)) for state_1NK in states[-_LAYERS:]]
        return torch.stack(scaled).mean(0)


def speech_windows(features_1NK: Tensor, first_latent: int, latents: int, tokens: int) -> Tensor:
    """The speech tokens of latent frames `first_latent .. first_latent + latents - 1`.

    Latent t > 0 shows pixel frames 4t-3 .. 4t and hears `tokens` features (two to a frame) centred on those; latent 0
    shows frame 0 as the last of its four, as in `audio.latent_tokens`. Outside the clip there are zeros.

    Returns:
        `[B, latents, tokens, K]`.

    Raises:
        ValueError: no latents or tokens asked for, or latents before the clip.
    """
    if first_latent < 0 or latents < 1 or tokens < 1:
        raise ValueError(f"first_latent {first_latent}, latents {latents}, tokens {tokens}: expected >= 0, >= 1, >= 1")
    stride = 4 * PER_FRAME
    before = 3 * PER_FRAME + (tokens - stride) // 2
    start = first_latent * stride - before
    stop = start + (latents - 1) * stride + tokens
    count = features_1NK.shape[1]
    inside_1NK = features_1NK[:, min(max(0, start), count) : max(0, min(stop, count))]
    left, right = max(0, min(0, stop) - start), max(0, stop - max(count, start))
    padded_1NK = nn.functional.pad(inside_1NK, (0, 0, left, right))
    return padded_1NK.unfold(1, tokens, stride).transpose(2, 3)


def spans(count: int, window: int, context: int) -> list[tuple[int, int, int, int]]:
    """Windows over `count` tokens as (low, start, stop, high): low..high is heard, start..stop is kept of it."""
    if count <= window:
        return [(0, 0, count, count)]
    edges = [*range(0, count, window - 2 * context), count]
    return [(max(0, start - context), start, stop, min(count, stop + context)) for start, stop in pairwise(edges)]


def _arithmetic(config: Any) -> tuple[int, int]:
    """Samples that one feature of the convolutions sees, and samples between two of them."""
    field, stride = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, stride = field + (kernel - 1) * stride, stride * step
    return field, stride
