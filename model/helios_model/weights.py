"""Bundles on disk: config.json, model.safetensors, codec.safetensors, and whatever else their maker adds.

A bundle appears whole or not at all: it is written beside its place and renamed.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = "config.json"
FORMAT = 2
_OLDER = {1: "its queries, keys and values are stored as one matrix; train it again"}
_FLOATS = ("F32", "BF16", "F16")


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and what is wrong with it."""


class Entry(NamedTuple):
    """What a safetensors file says about one of its tensors."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def write_bundle(folder: Path, documents: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write JSON `documents` and safetensors files by file name; replaces an older bundle in `folder`.

    Raises:
        FileExistsError: `folder` holds something else than a bundle, which would be lost.
        OSError: nothing was changed.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / CONFIG).exists() or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder} is there and is no bundle: {CONFIG} is missing")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for name, document in documents.items():
            (fresh / name).write_text(json.dumps(document, indent=2) + "\n")
        for name, state in tensors.items():
            whole = {key: value.detach().cpu().contiguous() for key, value in state.items()}
            save_file(whole, fresh / name, {"format": "pt"})
        if folder.exists():
            _swap(folder, fresh)
        else:
            fresh.replace(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _swap(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`, or leave `folder` where it was."""
    grave = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    old = grave / "bundle"
    try:
        folder.replace(old)
        fresh.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        grave.rmdir()
        raise
    shutil.rmtree(grave)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BundleError: it is missing, or something else.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise BundleError(f"{path.parent} holds no model: {path.name} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} holds a {type(document).__name__}, expected an object")
    return document


def read_config(folder: Path) -> dict[str, Any]:
    """The bundle's config.json.

    Raises:
        BundleError: no bundle there, not JSON, or written by an older or newer version.
    """
    path = Path(folder) / CONFIG
    document = read_json(path)
    came = document.get("format")
    if came != FORMAT:
        why = f": {_OLDER[came]}" if isinstance(came, int) and came in _OLDER else ""
        raise BundleError(f"{path} is a bundle of format {came}, not a bundle of format {FORMAT}{why}")
    return document


def load_into(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file.

    Raises:
        BundleError: the file is missing or damaged, or its keys, shapes or values do not fit; the message names them.
    """
    entries = read_entries(path)
    own = module.state_dict()
    check_entries(path, entries, own)
    module.load_state_dict(dict(read_tensors(path, list(entries))))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory.

    Raises:
        BundleError: it is missing, damaged or cut short.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is damaged or cut short: {error}") from error


def read_entries(path: Path) -> dict[str, Entry]:
    """The header of a safetensors file; no tensor is read.

    Raises:
        BundleError: the file is missing, damaged or cut short.
    """
    entries = {}
    with opened(path) as file:
        for key in file.keys():  # noqa: SIM118 - a safe_open cannot be iterated
            part = file.get_slice(key)
            entries[key] = Entry(path, tuple(part.get_shape()), part.get_dtype())
    return entries


def check_entries(where: Path, entries: Mapping[str, Entry], expected: Mapping[str, Tensor]) -> None:
    """Compare what files hold with the tensors that a network has under the same names.

    Raises:
        BundleError: missing and unexpected keys, wrong shapes, numbers that are no floats; eight of them at most.
    """
    problems = [f"missing {key}" for key in expected if key not in entries]
    for key, (file, shape, dtype) in entries.items():
        at = "" if file == where else f" of {file.name}"
        if key not in expected:
            problems.append(f"unexpected {key}{at}")
        elif tuple(expected[key].shape) != shape:
            problems.append(f"{key}{at} is {list(shape)}, expected {list(expected[key].shape)}")
        elif expected[key].is_floating_point() and dtype not in _FLOATS:
            problems.append(f"{key}{at} is {dtype}, expected one of {', '.join(_FLOATS)}")
    if problems:
        raise BundleError(f"{where} does not fit this model: {first_of(problems)}")


def first_of(problems: Sequence[str]) -> str:
    """The first eight of them, and how many more there are."""
    return "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinity: the extremes show it in one pass, a small part of what isfinite() costs."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def read_tensors(
    path: Path, keys: Sequence[str], *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a safetensors file, one at a time, as copies of their own on `device`.

    The file is mapped, not read whole: besides what the caller keeps there is one tensor in memory.

    Raises:
        BundleError: a tensor cannot be read, or holds NaN or infinity, as stored or as `dtype`.
    """
    with opened(path) as file:
        for key in keys:
            tensor = file.get_tensor(key).to(device=device, dtype=dtype, copy=True)
            if not all_finite(tensor):
                kind = str(tensor.dtype).removeprefix("torch.")
                wrong = tensor.numel() - int(tensor.isfinite().sum())
                raise BundleError(
                    f"{path}: {key} holds NaN or infinity as {kind} in {wrong} of {tensor.numel()} values"
                )
            yield key, tensor
