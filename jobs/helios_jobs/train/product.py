"""The end of a stage: weights to a bundle, the bundle into the bucket, a look at it, and its place in the registry."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from helios.errors import EngineError, NoSpaceError
from helios_jobs.curriculum.objective import Preview
from helios_jobs.serve.media import encode_video
from helios_jobs.train.checkpoints import publish
from helios_jobs.train.context import JobContext
from helios_jobs.train.outcome import Outcome
from helios_jobs.train.progress import explain
from helios_jobs.train.registry import register_bundle
from helios_jobs.train.tracking import Tracker
from helios_jobs.train.worker import Worker

UPSCALE = 8
"""Previews are made larger by whole pixels: what the model made is what is seen."""
REGISTRY_TIMEOUT = 180.0


def finish(worker: Worker, weights: Mapping[str, Tensor]) -> Outcome:
    """Publish what was trained. Rank 0 does it all; the others are done."""
    lead = worker.lead
    if lead is None:
        return Outcome("Completed")
    job, bundle = worker.job, worker.job.bundle_dir
    torch.set_num_threads(max(torch.get_num_threads(), min(job.workers, 4)))  # the other ranks are done with theirs

    worker.phase("exporting")
    lineage = _lineage(worker)
    try:
        digest = publish(bundle, lambda folder: worker.objective.export(weights, folder), lineage)
    except NoSpaceError as error:
        return worker.leave("NoSpace", explain(error))

    worker.phase("evaluating")
    preview = worker.objective.preview(bundle)
    lead.tracker.metrics(preview.metrics, worker.config.steps)
    with tempfile.TemporaryDirectory() as scratch:
        write_preview(preview, Path(scratch))
        lead.tracker.submit("previews", lambda client, run_id: client.log_artifacts(run_id, scratch, "preview"))
        lead.tracker.tags({"helios.bundle": str(bundle), "helios.bundle_sha256": digest})
        outputs = {"checkpoint": str(bundle)}
        if job.lineage.registered_model:
            worker.phase("registering")
            outputs["model_version"] = _register(job, lead.tracker, bundle, {**lineage, "sha256": digest})
        closing = lead.tracker.finish("FINISHED")
    if closing.run_id:
        outputs["run_id"] = closing.run_id
    return Outcome("Completed", closing.warning, outputs)


def write_preview(preview: Preview, folder: Path) -> None:
    """Write the videos (MP4, upscaled by whole pixels) and the contact sheet (PNG) into `folder`."""
    for name, (frames, audio) in preview.videos.items():
        encode_video(folder / f"{name}.mp4", _enlarged(frames), audio=audio)
    Image.fromarray(preview.contact_sheet).save(folder / "contact-sheet.png")


def _enlarged(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frames.repeat(UPSCALE, axis=1).repeat(UPSCALE, axis=2)


def _lineage(worker: Worker) -> dict[str, Any]:
    assert worker.lead, "only rank 0 publishes"
    job = worker.job
    return {
        "job": job.name,
        "job_uid": job.uid,
        "curriculum": job.lineage.curriculum,
        "curriculum_run": job.lineage.run,
        "stage": job.lineage.stage,
        "run_id": worker.lead.tracker.run_id,
        "parent": {
            "bundle": str(job.lineage.parent_bundle or ""),
            "sha256": worker.lead.parent_sha256,
            "run_id": job.lineage.parent_run_id,
        },
        "world_size": job.workers,
        "config": worker.config.model_dump(mode="json"),
    }


def _register(job: JobContext, tracker: Tracker, bundle: Path, lineage: Mapping[str, Any]) -> str:
    """Register through the tracker's queue, so that an outage is waited out; without a registry the stage has failed.

    Raises:
        EngineError: the registry could not be reached in time. The bundle is published; a retry registers it.
    """
    version = ""

    def task(client: Any, run_id: str) -> None:
        nonlocal version
        version = register_bundle(
            client,
            run_id,
            bundle,
            model=job.lineage.registered_model,
            job_uid=job.uid,
            tags={
                "helios.curriculum": job.lineage.curriculum,
                "helios.curriculum_uid": job.lineage.curriculum_uid,
                "helios.bundle_sha256": lineage["sha256"],
                "helios.parent_run_id": lineage["parent"]["run_id"],
            },
            about=f"Stage {job.lineage.stage or job.name} of {job.lineage.curriculum or 'a lone job'}, job {job.name}.",
        )

    if not tracker.wait(tracker.submit("model version", task), timeout=REGISTRY_TIMEOUT) or not version:
        closing = tracker.finish("FAILED")
        raise EngineError(f"{job.lineage.registered_model} could not be registered: {closing.warning or 'no MLflow'}")
    return version
