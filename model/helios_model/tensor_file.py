"""Tensors with words about them in one safetensors file, written whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from helios_model.weights import BundleError, opened


def write(path: Path, kind: str, tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> None:
    """Write `tensors` and `words` as a file of the given `kind`; an older file stays until the new one is complete.

    Raises:
        OSError: nothing was changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    fresh = Path(name)
    try:
        save_file({key: _own(tensor) for key, tensor in tensors.items()}, fresh, {**words, "kind": kind})
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.chmod(0o644)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the words of a file that `write` made.

    Raises:
        BundleError: it is missing, damaged, cut short or of another kind; the message names it.
    """
    with opened(path) as file:
        words = dict(file.metadata() or {})
        if words.get("kind") != kind:
            raise BundleError(f"{path} holds {words.get('kind', 'something else')}, expected {kind}")
        return {key: file.get_tensor(key).clone() for key in file.keys()}, words  # noqa: SIM118 - cannot be iterated


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, in memory that no other tensor shares, as the format asks."""
    whole = tensor.detach().cpu().contiguous()
    return (
        whole.clone(memory_format=torch.contiguous_format) if whole.untyped_storage().nbytes() > whole.nbytes else whole
    )
