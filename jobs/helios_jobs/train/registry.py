"""The product of a curriculum as a version of a registered model, found by alias and by its job."""

import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALIAS = "production"
ARTIFACT = "model"
"""Folder of the run's artifacts that the version points to: MLmodel, README.md and the bundle in `bundle/`."""


def register_bundle(
    client: Any, run_id: str, bundle: Path, *, model: str, job_uid: str, tags: Mapping[str, str], about: str
) -> str:
    """Upload `bundle`, make it a version of `model` under the alias `production`; returns the version.

    A job registers once: where a version with its uid is there (the job was restarted after it), that one is taken.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model, description="Talking-avatar pipeline, trained by HELIOS.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    condition = f"name = '{model}' and tag.`helios.job_uid` = '{job_uid}'"
    found = client.search_model_versions(condition)
    if found:
        version = str(max(int(entry.version) for entry in found))
    else:
        _upload(client, run_id, bundle, about)
        version = client.create_model_version(
            model,
            source=f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACT}",
            run_id=run_id,
            tags={**tags, **stage_runs(client, run_id), "helios.job_uid": job_uid},
            description=about,
        ).version
    client.set_registered_model_alias(model, ALIAS, version)
    return str(version)


def stage_runs(client: Any, run_id: str) -> dict[str, str]:
    """The run of every stage that led to `run_id`, as tags `helios.run.<stage>`; each run names the one before it."""
    found: dict[str, str] = {}
    while run_id and run_id not in found.values():
        tags = client.get_run(run_id).data.tags
        found[f"helios.run.{tags.get('helios.stage', tags.get('helios.job', 'job'))}"] = run_id
        run_id = tags.get("helios.parent_run_id", "")
    return found


def _upload(client: Any, run_id: str, bundle: Path, about: str) -> None:
    """Put the bundle with its MLmodel and README among the run's artifacts."""
    with tempfile.TemporaryDirectory() as scratch:
        _describe_model(Path(scratch), run_id, about)
        client.log_artifacts(run_id, scratch, ARTIFACT)
    client.log_artifacts(run_id, str(bundle), f"{ARTIFACT}/bundle")


def _describe_model(folder: Path, run_id: str, about: str) -> None:
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema(
            [
                TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3), "reference_frames"),
                TensorSpec(np.dtype("float32"), (-1,), "audio"),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3), "frames")]),
    )
    card = Model(run_id=run_id, artifact_path=ARTIFACT, signature=signature)
    card.add_flavor("helios", pipeline="helios_model.pipeline:AvatarPipeline", data="bundle")
    card.save(str(folder / "MLmodel"))
    (folder / "README.md").write_text(
        textwrap.dedent(
            f"""\
            # A talking-avatar pipeline

            {about}

            ```python
            import mlflow
            from helios_model.pipeline import AvatarPipeline

            folder = mlflow.artifacts.download_artifacts("models:/<name>@{ALIAS}")
            pipeline = AvatarPipeline.from_pretrained(f"{{folder}}/bundle")
            for frames in pipeline.generate(reference_frames, audio):  # uint8 [F, H, W, 3] and float32 [n], 16 kHz mono
                ...  # uint8 [f, H, W, 3], in total ceil(n / 640) frames
            ```
            """
        ),
        encoding="utf-8",
    )
