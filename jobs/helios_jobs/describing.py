"""What `helios model` says of a network: figures as plain data, and as tables. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from helios.errors import NotFoundError
from helios_model import flops, memory
from helios_model.config import PRESETS, ModelConfig
from helios_model.flops import Workload


def named(name: str) -> ModelConfig:
    """A preset.

    Raises:
        NotFoundError: there is none of that name; carries the nearest.
    """
    if name not in PRESETS:
        raise NotFoundError("preset", name, known=PRESETS, hint=f"the presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def side(config: ModelConfig, asked: int | None, usual: int) -> int:
    """Pixels: what was asked for, else the network's own size, else what is usual."""
    return (config.size or usual) if asked is None else asked


def presets() -> list[dict[str, Any]]:
    """All presets and their sizes as plain data."""
    return [_preset_of(config) for config in PRESETS.values()]


def presets_view(found: Iterable[dict[str, Any]]) -> RenderableType:
    columns = ("PRESET", "PARAMETERS", "DIM", "LAYERS", "HEADS", "FFN", "TEXT", "AUDIO", "MOTION")
    return _table(columns, (_row(one) for one in found))


def _row(one: dict[str, Any]) -> Sequence[str]:
    sizes = (str(one[name]) for name in ("dim", "layers", "heads", "ffn"))
    inputs = (str(one[name] or "-") for name in ("text", "audio", "motion"))
    return (one["preset"], _count(one["parameters"]), *sizes, *inputs)


def _preset_of(config: ModelConfig) -> dict[str, Any]:
    names = ("preset", "dim", "layers", "heads", "ffn", "size")
    document = config.to_json()
    parts = {
        name: document[name] and f"{document[name]['kind']} x {document[name]['tokens']}" for name in ("text", "audio")
    }
    return {
        **{name: document[name] for name in names},
        "parameters": sum(flops.parameters(config).values()),
        **parts,
        "motion": config.motion and config.motion.dim,
    }


def description(
    config: ModelConfig,
    work: Workload,
    dtype: memory.Precision = "bf16",
    shards: int = 1,
    checkpointing: flops.Checkpointing = "none",
) -> dict[str, Any]:
    """All figures as plain data; FLOPs of the whole batch on all devices, bytes of one device.

    Raises:
        ValueError: the network cannot do that work.
    """
    count = flops.tokens(config, work)
    once, encoded = flops.generation_pass(config, work), flops.reference_pass(config, work)
    training = flops.training_step(config, work, checkpointing)
    parts = flops.parameters(config)
    return {
        "preset": config.preset,
        "workload": asdict(work) | {"dtype": dtype, "shards": shards, "checkpointing": checkpointing},
        "parameters": parts | {"total": sum(parts.values())},
        "tokens": asdict(count) | {"generation": count.generation, "visual": count.visual},
        "layer_flops": {
            "generation": _flops_of(flops.generation_layer(config, work)),
            "reference": _flops_of(flops.reference_layer(config, work)),
            "reference_self_attention": flops.reference_self_attention(config, work),
        },
        "flops": {
            "pass": once.total,
            "reference": encoded.total,
            "step": flops.step(config, work),
            "generation": flops.generation(config, work),
            "training_forward": training.forward,
            "training_backward": training.backward,
            "training_recompute": training.recompute,
        },
        "bytes": {
            **asdict(memory.state(config, dtype, shards)),
            "reference_cache": memory.reference_cache(config, work, dtype),
            "generation_activations": memory.generation_activations(config, work, dtype),
            "training_activations": memory.training_activations(config, work, dtype, checkpointing),
        },
    }


def _flops_of(layer: flops.LayerFlops) -> dict[str, int]:
    return asdict(layer) | {"total": layer.total}


def view(found: dict[str, Any]) -> RenderableType:
    """The figures of `description` as tables."""
    return Group(
        _headline(found),
        Text(),
        _parameter_table(found["parameters"]),
        Text(),
        _token_table(found["tokens"]),
        Text(),
        _layer_table(found["layer_flops"]),
        Text(),
        _flops_table(found),
        Text(),
        _memory_table(found),
    )


def _headline(found: dict[str, Any]) -> Text:
    work = found["workload"]
    shown = f"{work['height']} x {work['width']} pixels, {work['frames']} frames"
    references = f", {work['reference_frames']} reference frames" if work["reference_frames"] else ""
    batch = f", {work['batch']} at a time" if work["batch"] > 1 else ""
    return Text.assemble((found["preset"], "bold"), f": {shown}{references}{batch}, {work['dtype']}")


def _parameter_table(parts: dict[str, int]) -> Table:
    rows = [[name, _count(number), f"{number / parts['total']:.1%}"] for name, number in parts.items() if number]
    return _table(("PARAMETERS", "", "SHARE"), rows)


def _token_table(count: dict[str, int]) -> Table:
    names = ("prefix", "noisy", "anchor", "motion", "generation", "reference", "text")
    labels = {"generation": "generation, all of these", "noisy": f"noisy ({count['frame']:,} a latent frame)"}
    rows = [[labels.get(name, name), f"{count[name]:,}"] for name in names if count[name]]
    rows.append(["generation and reference, without motion", f"{count['visual']:,}"])
    return _table(("TOKENS OF A SAMPLE", ""), rows)


def _layer_table(layer: dict[str, Any]) -> Table:
    labels = {
        "projections": "self-attention: projections",
        "scores": "self-attention: scores",
        "text": "text cross-attention",
        "audio": "audio cross-attention",
        "ffn": "feed-forward",
        "total": "all",
    }
    streams = ("generation", "reference")
    rows = [[label, *(_flops(layer[stream][name]) for stream in streams)] for name, label in labels.items()]
    rows.append(["reference self-attention, both streams", _flops(layer["reference_self_attention"]), ""])
    return _table(("FLOPS OF ONE LAYER", "GENERATION", "REFERENCE"), rows)


def _flops_table(found: dict[str, Any]) -> Table:
    work, made = found["workload"], found["flops"]
    wanted = {
        "one pass, references ready": made["pass"],
        f"references, {'once' if work['cached'] else 'in every pass'}": made["reference"],
        f"a denoising step of {_number(work['passes'], 'pass', 'passes')}": made["step"],
        f"a generation of {_number(work['steps'], 'step', 'steps')}": made["generation"],
        "a training step: forward": made["training_forward"],
        "a training step: backward": made["training_backward"],
        "a training step: computed again": made["training_recompute"],
    }
    devices = work["sequence_parallel"]
    rows = [
        [label, _flops(number), *([_flops(number / devices)] if devices > 1 else [])]
        for label, number in wanted.items()
        if number
    ]
    return _table(("FLOPS", "IN ALL", *([f"OF {devices} DEVICES EACH"] if devices > 1 else [])), rows)


def _memory_table(found: dict[str, Any]) -> Table:
    work, held = found["workload"], found["bytes"]
    shards = f" over {work['shards']} devices" if work["shards"] > 1 else ""
    wanted = {
        f"weights{shards}": held["weights"],
        f"gradients{shards}": held["gradients"],
        f"AdamW's state{shards}": held["optimizer"],
        f"activations of training, checkpointing {work['checkpointing']}": held["training_activations"],
        "activations of a pass without gradients": held["generation_activations"],
        "references' keys and values": held["reference_cache"],
    }
    return _table(("MEMORY OF A DEVICE", ""), [[label, _bytes(number)] for label, number in wanted.items() if number])


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _flops(number: float) -> str:
    return (
        "-"
        if not number
        else _scaled(number, 1000, ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs"))
    )


def _bytes(number: float) -> str:
    return _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _count(number: float) -> str:
    return _scaled(number, 1000, ("", "K", "M", "B"))


def _scaled(number: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    return f"{number:,.2f} {units[power]}".rstrip()


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
