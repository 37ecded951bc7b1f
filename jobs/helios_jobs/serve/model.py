"""Finding the model that is served: an MLflow model URI, or a folder."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from helios.errors import EngineError, InputError
from helios_jobs.serve.service import ServedModel

if TYPE_CHECKING:
    from helios_model.pipeline import AvatarPipeline


def load_model(model: str, *, downloads: Path, tracking_uri: str | None = None) -> ServedModel:
    """Load `models:/name@alias`, `models:/name/version` or a folder that has (or whose `bundle` has) a pipeline.

    Args:
        model: what to load; an alias is resolved once, here.
        downloads: folder to download to; what was there before is removed.
        tracking_uri: of MLflow; None leaves it to the environment.

    Raises:
        InputError: no such model, version or folder, or no pipeline in it.
        EngineError: MLflow does not answer.
    """
    if not model.startswith("models:/"):
        return ServedModel(_pipeline(Path(model)), Path(model).name, "")
    folder, name, version = _download(model, downloads, tracking_uri)
    return ServedModel(_pipeline(folder), name, version)


def _download(model: str, downloads: Path, tracking_uri: str | None) -> tuple[Path, str, str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    name, alias, version = _parts(model)
    try:
        if alias:
            client = mlflow.MlflowClient(tracking_uri, tracking_uri)
            version = str(client.get_model_version_by_alias(name, alias).version)
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        pinned = f"models:/{name}/{version}"
        local: str = mlflow.artifacts.download_artifacts(
            artifact_uri=pinned, dst_path=str(downloads), tracking_uri=tracking_uri, registry_uri=tracking_uri
        )
    except MlflowException as error:
        missing = error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
        raise (InputError if missing else EngineError)(
            f"the model {model} cannot be loaded: {error.message}"
        ) from error
    return Path(local), name, version


def _parts(model: str) -> tuple[str, str, str]:
    """Name, alias and version of a model URI; one of the last two is empty."""
    path = model.removeprefix("models:/")
    name, _, alias = path.partition("@")
    name, _, version = name.partition("/")
    if not name or bool(alias) == bool(version):
        raise InputError(f"expected a model as models:/name@alias or models:/name/version, got {model!r}")
    return name, alias, version


def _pipeline(folder: Path) -> "AvatarPipeline":
    from helios_model.pipeline import AvatarPipeline, BundleError

    bundle = next((found for found in (folder, folder / "bundle") if (found / "config.json").is_file()), None)
    if bundle is None:
        raise InputError(f"there is no model bundle in {folder}", hint="a bundle has a config.json")
    try:
        return AvatarPipeline.from_pretrained(bundle)
    except BundleError as error:
        raise InputError(f"the model bundle in {folder} cannot be loaded: {error}") from error
