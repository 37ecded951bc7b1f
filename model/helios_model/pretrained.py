"""Models of diffusers and transformers from local folders: whole and as expected, or an error that names the file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import nn

from helios_model.weights import BundleError, all_finite, first_of, opened, read_json


def load_pretrained(
    kind: Any,
    folder: Path,
    *,
    stem: str,
    config: Mapping[str, str],
    options: Mapping[str, Any],
    may_lack: tuple[str, ...] = (),
    may_have: tuple[str, ...] = (),
) -> nn.Module:
    """`kind.from_pretrained(folder)` from safetensors on this machine, in evaluation mode.

    Args:
        kind: a model class of diffusers or transformers.
        stem: of the weights' file names: `<stem>.safetensors`, or shards with `<stem>.safetensors.index.json`.
        config: what config.json must say.
        options: for `from_pretrained`.
        may_lack: keys that this use of the model never reads.
        may_have: prefixes of keys of parts that this use of the model does not have.

    Raises:
        BundleError: a file is missing, damaged or of another model; names it, the key, what came, what was expected.
    """
    document = read_json(folder / "config.json")
    for key, wanted in config.items():
        if document.get(key) != wanted:
            raise BundleError(f"{folder / 'config.json'}: {key} is {document.get(key)!r}, expected {wanted!r}")
    files = dict(_keys(folder, stem))
    try:
        model, report = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, all of them
            **options,
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, StrictDataclassError) as error:
        raise BundleError(f"{folder} is no {kind.__name__}: {error}") from error

    problems = _problems(folder, files, model, report, may_lack=may_lack, may_have=may_have)
    if problems:
        raise BundleError(f"these weights do not fit {kind.__name__}: {first_of(problems)}")
    fitting: nn.Module = model.eval().requires_grad_(requires_grad=False)
    return fitting


def _problems(
    folder: Path,
    files: Mapping[str, Path],
    model: nn.Module,
    report: Mapping[str, Any],
    *,
    may_lack: tuple[str, ...],
    may_have: tuple[str, ...],
) -> list[str]:
    """What `from_pretrained` put up with, and values that are none, each with its file."""

    def where(key: str) -> Path:
        # Checkpoints of a model with a head have the model's own keys below a prefix.
        return next((path for name, path in files.items() if name == key or name.endswith(f".{key}")), folder)

    lost = sorted(set(report["missing_keys"]) - {key for key, _, _ in report["mismatched_keys"]} - set(may_lack))
    problems = [f"{folder}: missing {key}" for key in lost]
    problems += [
        f"{where(key)}: unexpected {key}"
        for key in sorted(report["unexpected_keys"])
        if not key.startswith(may_have or ("\0",))
    ]
    problems += [
        f"{where(key)}: {key} is {list(came)}, expected {list(wanted)}"
        for key, came, wanted in sorted(report["mismatched_keys"])
    ]
    problems += [
        f"{where(name)}: {name} holds NaN or infinity"
        for name, tensor in model.named_parameters()
        if name not in may_lack and not all_finite(tensor.detach())
    ]
    return problems


def _keys(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    """Every key of the weights and its file; opens each, which finds those that were cut short."""
    index = folder / f"{stem}.safetensors.index.json"
    names = {f"{stem}.safetensors"}
    if index.exists():
        promised = read_json(index).get("weight_map")
        if not isinstance(promised, dict) or not promised:
            raise BundleError(f"{index} has no weight_map")
        names = {str(name) for name in promised.values()}
    for path in sorted(folder / name for name in names):
        with opened(path) as file:
            keys = list(file.keys())
        yield from ((key, path) for key in keys)
