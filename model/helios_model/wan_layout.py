"""Wan in diffusers' words (`WanTransformer3DModel`): names of parameters and fields of config.json, both ways.

A config.json of ours says under `_helios` what Wan has not (sound, motion, windows); diffusers passes private fields
over.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from helios_model.config import PRESETS, TEMPORAL_RANGE, ModelConfig, TextFeatures
from helios_model.weights import CONFIG, BundleError, read_json

EXTENSION_KEY = "_helios"
_EXTENSION_FORMAT = 1
_EXTENSION_FIELDS = ("preset", "audio", "motion", "window", "size")
_CLASS = "WanTransformer3DModel"

_SUPPORTED: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
    "rope_max_seq_len": TEMPORAL_RANGE,
}
"""Fields of which this network knows one value, that of Wan2.1 text-to-video; also what diffusers takes if absent."""
_NUMBERS: dict[str, int | float] = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "eps": 1e-6,
}
"""Fields that may be any positive number, with what diffusers takes if absent."""

_OUTER = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head": "proj_out",
}
_OF_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_OF_BLOCK = {
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _OF_ATTENTION.items()},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in _OF_ATTENTION.items()},
    "norm_text": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_OF_BLOCK_BARE = {
    "modulation.weight": "scale_shift_table",
    **{
        f"{ours}.{norm}.weight": f"{theirs}.{norm}.weight"
        for ours, theirs in {"self_attn": "attn1", "cross_attn": "attn2"}.items()
        for norm in ("norm_q", "norm_k")
    },
}


def wan_keys(layers: int) -> dict[str, str]:
    """Diffusers' name of each of our parameters that Wan has, too; one to one."""
    pairs = dict(_with_bias(_OUTER)) | {"head_modulation": "scale_shift_table"}
    block = dict(_with_bias(_OF_BLOCK)) | _OF_BLOCK_BARE
    for index in range(layers):
        pairs |= {f"blocks.{index}.{ours}": f"blocks.{index}.{theirs}" for ours, theirs in block.items()}
    return pairs


def _with_bias(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for ours, theirs in names.items():
        for part in ("weight", "bias"):
            yield f"{ours}.{part}", f"{theirs}.{part}"


def to_wan(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Wan's share of our state under diffusers' names: views, the patch projection as a convolution's kernel."""
    shared = {theirs: state[ours] for ours, theirs in wan_keys(config.layers).items()}
    kernel = (config.dim, config.channels, 1, config.patch, config.patch)
    return shared | {"patch_embedding.weight": shared["patch_embedding.weight"].reshape(kernel)}


def wan_document(config: ModelConfig) -> dict[str, Any]:
    """Diffusers' config.json of a network, with our extension of it.

    Raises:
        ValueError: diffusers' Wan has no such network.
    """
    text = config.text
    if not isinstance(text, TextFeatures) or config.prediction != "velocity" or config.patch != 2:
        raise ValueError(
            "diffusers' Wan reads text features and predicts velocity in patches of 2 x 2 latents; this network has "
            f"text {text}, prediction {config.prediction!r}, patch {config.patch}"
        )
    ours = config.to_json()
    return {
        "_class_name": _CLASS,
        **_SUPPORTED,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "text_dim": text.dim,
        "freq_dim": config.frequency_dim,
        "ffn_dim": config.ffn,
        "num_layers": config.layers,
        "eps": config.eps,
        EXTENSION_KEY: {
            "format": _EXTENSION_FORMAT,
            "text_tokens": text.tokens,
            **{name: ours[name] for name in _EXTENSION_FIELDS},
        },
    }


def read_wan_config(folder: Path | str) -> ModelConfig:
    """The network that a folder's config.json describes; Wan's fields alone make one without sound and motion.

    Raises:
        BundleError: not a text-to-video Wan; the message has the field, what came and what is supported.
    """
    path = Path(folder) / CONFIG
    if not path.exists() and (path.parent / "transformer" / CONFIG).exists():
        raise BundleError(f"{folder} is a whole pipeline: its network is in {path.parent / 'transformer'}")
    document = read_json(path)
    if document.get("_class_name") != _CLASS:
        raise BundleError(f"{path}: _class_name is {document.get('_class_name')!r}, supported is {_CLASS!r}")
    for name, value in document.items():
        if not name.startswith("_") and name not in _SUPPORTED and name not in _NUMBERS:
            raise BundleError(f"{path}: {name} is {value!r}, supported are {_CLASS}'s own fields only")
    for name, supported in _SUPPORTED.items():
        came = document.get(name, supported)
        if came != supported or type(came) is not type(supported):
            raise BundleError(f"{path}: {name} is {came!r}, supported is {supported!r}")
    numbers = {name: _number(path, document, name, default) for name, default in _NUMBERS.items()}
    if numbers["out_channels"] != numbers["in_channels"]:
        came = numbers["out_channels"]
        raise BundleError(f"{path}: out_channels is {came}, supported is in_channels, {numbers['in_channels']}")
    try:
        return _config(numbers, document.get(EXTENSION_KEY))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} does not describe a model: {type(error).__name__}: {error}") from error


def _number(path: Path, document: Mapping[str, Any], name: str, default: float) -> int | float:
    came = document.get(name, default)
    if name == "out_channels" and came is None:
        return _number(path, document, "in_channels", default)
    if type(came) is int and came > 0 and isinstance(default, int):
        return came
    if isinstance(came, float) and came > 0 and math.isfinite(came) and isinstance(default, float):
        return came
    wanted = "a positive whole number" if isinstance(default, int) else "a positive number"
    raise BundleError(f"{path}: {name} is {came!r}, supported is {wanted}")


def _config(numbers: Mapping[str, Any], extension: Mapping[str, Any] | None) -> ModelConfig:
    ours = dict(extension or {"format": _EXTENSION_FORMAT})
    came = ours.pop("format", None)
    if came != _EXTENSION_FORMAT:
        raise ValueError(f"{EXTENSION_KEY} is of format {came!r}, supported is {_EXTENSION_FORMAT}")
    tokens = ours.pop("text_tokens", TextFeatures().tokens)
    if unknown := ours.keys() - set(_EXTENSION_FIELDS):
        raise ValueError(f"{EXTENSION_KEY} has the unknown fields {sorted(unknown)}")
    config = ModelConfig.from_json(
        {
            "preset": "wan",
            "channels": numbers["in_channels"],
            "patch": 2,
            "dim": numbers["num_attention_heads"] * numbers["attention_head_dim"],
            "layers": numbers["num_layers"],
            "heads": numbers["num_attention_heads"],
            "ffn": numbers["ffn_dim"],
            "frequency_dim": numbers["freq_dim"],
            "eps": numbers["eps"],
            "text": {"kind": "features", "dim": numbers["text_dim"], "tokens": tokens},
            **ours,
        }
    )
    if extension is not None:
        return config
    sizes = {(known.dim, known.layers, known.heads, known.ffn): name for name, known in PRESETS.items()}
    return replace(config, preset=sizes.get((config.dim, config.layers, config.heads, config.ffn), "wan"))
