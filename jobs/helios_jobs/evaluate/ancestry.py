"""Finds bundles: in a folder, in MLflow's registry, and the ancestors that a bundle's lineage.json names."""

import json
from pathlib import Path
from typing import Any

from helios.errors import EngineError, InputError
from helios_jobs.curriculum.config import DistillOptions
from helios_model.pipeline import Guidance


def find_bundle(source: str, scratch: Path) -> Path:
    """The bundle folder of a path or of `models:/name@alias` (downloaded to `scratch`).

    Raises:
        InputError: there is no bundle.
        EngineError: the registry cannot be asked.
    """
    folder = _download(source, scratch) if source.startswith("models:/") else Path(source)
    for candidate in (folder, folder / "bundle"):
        if (candidate / "config.json").is_file():
            return candidate
    raise InputError(f"{source} holds no bundle (no config.json)", hint="give the folder that a stage published")


def _download(source: str, scratch: Path) -> Path:
    import mlflow

    try:
        return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(scratch)))
    except mlflow.exceptions.MlflowException as error:
        raise EngineError(f"{source} cannot be fetched: {error}", hint="is MLFLOW_TRACKING_URI set?") from error


def read_lineage(bundle: Path) -> dict[str, Any]:
    """What the bundle's maker recorded; empty where it recorded nothing. Raises `InputError` where it is damaged."""
    path = bundle / "lineage.json"
    return _read(path) if path.is_file() else {}


def find_ancestor(bundle: Path, stage: str) -> Path | None:
    """The nearest bundle of `stage` up the line of parents, itself included, as far as folders still exist."""
    seen: set[Path] = set()
    here: Path | None = bundle
    while here is not None and here not in seen and (here / "config.json").is_file():
        seen.add(here)
        if stage_of(here) == stage:
            return here
        parent = read_lineage(here).get("parent")
        named = parent.get("bundle", "") if isinstance(parent, dict) else parent
        here = Path(named) if named else None
    return None


def stage_of(bundle: Path) -> str:
    """The stage that made a bundle, as its config.json says; empty if it does not. Raises `InputError`: damaged."""
    return str(_read(bundle / "config.json").get("stage", ""))


def distilled_guidance(bundle: Path) -> Guidance:
    """The guidance that the `distill` ancestor learnt to do without; the stage's defaults where it is not recorded."""
    distilled = find_ancestor(bundle, "distill")
    config = read_lineage(distilled).get("config", {}) if distilled else {}
    options = DistillOptions(**config.get("distill", {}))
    return Guidance(text=options.text_guidance, audio=options.audio_guidance)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON object")
    return document
