"""Models of diffusers and transformers from local folders: whole and as expected, or an error that names the file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn

from helios_model.weights import BundleError

_SHOWN = 8


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
    document = read_document(folder / "config.json")
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
        if name not in may_lack and not bool(tensor.isfinite().all())
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BundleError(f"these weights do not fit {kind.__name__}: {'; '.join(problems[:_SHOWN])}{more}")
    fitting: nn.Module = model.eval().requires_grad_(requires_grad=False)
    return fitting


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BundleError: missing or something else.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} holds {type(document).__name__}, expected an object")
    return document


def _keys(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    """Every key of the weights and its file; opens each, which finds those that were cut short."""
    index = folder / f"{stem}.safetensors.index.json"
    names = {f"{stem}.safetensors"}
    if index.exists():
        promised = read_document(index).get("weight_map")
        if not isinstance(promised, dict) or not promised:
            raise BundleError(f"{index} has no weight_map")
        names = {str(name) for name in promised.values()}
    for path in sorted(folder / name for name in names):
        try:
            with safe_open(path, framework="pt") as file:
                keys = list(file.keys())
        except FileNotFoundError:
            raise BundleError(f"{path} is missing") from None
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path} is damaged or cut short: {error}") from error
        yield from ((key, path) for key in keys)
