"""`helios model`: what a network costs on some work, before anything runs. Needs no torch.

Every `helios` command imports this file, so what only these need is imported when they run.
"""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from helios.errors import InputError

WIDTH = 100
app = typer.Typer(name="model", help="Networks: their presets, and what they cost.", no_args_is_help=True)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Precision(StrEnum):
    BF16 = "bf16"
    FP32 = "fp32"


class Checkpointing(StrEnum):
    NONE = "none"
    SELECTIVE = "selective"
    FULL = "full"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print.", show_default=True)]


@app.command("list", epilog="Examples:\n\n  $ helios model list\n\n  $ helios model list -o json")
def list_presets(how: FormatOption = Format.TABLE) -> None:
    """List the presets and their sizes."""
    from helios_jobs.describing import presets, presets_view

    found = presets()
    _print(found, how, lambda: presets_view(found))


@app.command(
    epilog="Examples:\n\n  $ helios model describe wan-14b --reference-frames 20\n\n"
    "  $ helios model describe wan-14b --reference-frames 20 --reference-tokens 755 --guidance 3 -o json\n\n"
    "  $ helios model describe wan-1.3b --frames 161 --prefix 2 --sequence-parallel 4 --checkpointing full"
)
def describe(
    preset: Annotated[str, typer.Argument(help="One of `helios model list`.", show_default=False)],
    *,
    height: Annotated[
        int | None, typer.Option(help="Pixels; 480 where not said and the network has no size of its own.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Pixels; 896 where not said and the network has no size of its own.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Pixel frames that are generated, 4k + 1.")] = 81,
    reference_frames: Annotated[
        int, typer.Option(help="Pixel frames of the reference clip; n are 1 + (n - 1) // 4 latent frames.")
    ] = 0,
    reference_tokens: Annotated[
        int | None, typer.Option(help="How many tokens of it are kept; all where not said.", show_default=False)
    ] = None,
    anchor: Annotated[bool, typer.Option(help="A background or anchor image.")] = True,
    anchor_tokens: Annotated[
        int | None, typer.Option(help="How many tokens of it are kept; all where not said.", show_default=False)
    ] = None,
    prefix: Annotated[int, typer.Option(help="Latent frames of the chunk before.")] = 0,
    audio: Annotated[
        bool | None,
        typer.Option("--audio/--no-audio", help="Sound, of references too; as the network can where not said."),
    ] = None,
    motion: Annotated[
        bool | None, typer.Option("--motion/--no-motion", help="Motion tokens; as the network can where not said.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the prompt; the network's own length where not said.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 24,
    guidance: Annotated[
        int, typer.Option(min=1, help="Passes to a step: one for each prompt that guidance compares.")
    ] = 1,
    cached: Annotated[bool, typer.Option(help="Keep the references' keys and values over passes.")] = True,
    dtype: Annotated[Precision, typer.Option(help="Of weights, activations and cache.")] = Precision.BF16,
    sequence_parallel: Annotated[
        int, typer.Option(min=1, help="Devices that share a sequence; divides the heads.")
    ] = 1,
    shards: Annotated[int, typer.Option(min=1, help="Devices that share weights, gradients and AdamW's state.")] = 1,
    checkpointing: Annotated[
        Checkpointing, typer.Option(help="What training computes again instead of keeping it.")
    ] = Checkpointing.NONE,
    how: FormatOption = Format.TABLE,
) -> None:
    """Show parameters, tokens, FLOPs and memory of a network on a workload; nothing is run."""
    from helios_jobs.describing import description, named, side, view
    from helios_model.flops import Workload

    config = named(preset)
    hears = config.audio is not None if audio is None else audio
    try:
        work = Workload(
            height=side(config, height, 480),
            width=side(config, width, 896),
            frames=frames,
            reference_frames=reference_frames,
            reference_tokens=reference_tokens,
            anchor=anchor,
            anchor_tokens=anchor_tokens,
            prefix=prefix,
            audio=hears,
            reference_audio=hears and reference_frames > 0,
            motion=config.motion is not None if motion is None else motion,
            text_tokens=text_tokens,
            batch=batch,
            steps=steps,
            passes=guidance,
            cached=cached,
            sequence_parallel=sequence_parallel,
        )
        found = description(config, work, dtype.value, shards, checkpointing.value)
    except ValueError as error:
        raise InputError(str(error)) from error
    _print(found, how, lambda: view(found))


def _print(data: Any, how: Format, table: Callable[[], RenderableType]) -> None:
    if how is Format.JSON:
        typer.echo(json.dumps(data, indent=2))
    elif how is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(data, sort_keys=False), nl=False)
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table())
