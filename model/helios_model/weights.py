"""Bundles on disk: config.json, model.safetensors, codec.safetensors, and whatever else their maker adds.

A bundle appears whole or not at all: it is written beside its place and renamed.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG = "config.json"
FORMAT = 1


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and what is wrong with it."""


def write_bundle(folder: Path, documents: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write JSON `documents` and safetensors files by file name; replaces an older bundle in `folder`.

    Raises:
        OSError: nothing was changed.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for name, document in documents.items():
            (fresh / name).write_text(json.dumps(document, indent=2) + "\n")
        for name, state in tensors.items():
            save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, fresh / name)
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


def read_config(folder: Path) -> dict[str, Any]:
    """The bundle's config.json.

    Raises:
        BundleError: no bundle there, not JSON, or written by a newer version.
    """
    path = Path(folder) / CONFIG
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise BundleError(f"{folder} holds no model bundle: {CONFIG} is missing") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BundleError(f"{path} is not a bundle of format {FORMAT}")
    return document


def load_into(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file.

    Raises:
        BundleError: the file is missing or damaged, or its keys, shapes or values do not fit; the message names them.
    """
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is damaged or cut short: {error}") from error
    own = module.state_dict()
    problems = [f"missing {key}" for key in sorted(own.keys() - state.keys())]
    problems += [f"unexpected {key}" for key in sorted(state.keys() - own.keys())]
    for key in sorted(own.keys() & state.keys()):
        if own[key].shape != state[key].shape:
            problems.append(f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}")
        elif not bool(state[key].isfinite().all()):
            problems.append(f"{key} holds NaN or infinity")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise BundleError(f"{path} does not fit this model: {shown}")
    module.load_state_dict(state)
