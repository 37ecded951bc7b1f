"""Probes fitted on fewer people than the real ones, once for all tests of this folder."""

import numpy as np
import pytest

from helios_jobs.data.world import Clips
from helios_jobs.evaluate.probes import Probes, fit_codec, fit_identity, fit_mouth, render_people, through_codec
from helios_model.codec import PatchCodec


@pytest.fixture(scope="session")
def probe_clips() -> Clips:
    return render_people("metric", 100)


@pytest.fixture(scope="session")
def probe_codec(probe_clips: Clips) -> PatchCodec:
    return fit_codec(probe_clips.frames[::5])


@pytest.fixture(scope="session")
def probes(probe_clips: Clips, probe_codec: PatchCodec) -> Probes:
    coded = through_codec(probe_codec, probe_clips.frames)
    return Probes(
        fit_mouth(probe_clips, [coded]),
        fit_identity("pixels", probe_clips, [coded]),
        fit_identity("edges", probe_clips, [coded]),
        "test",
    )


@pytest.fixture(scope="session")
def heldout_clips() -> Clips:
    """32 people of the test split in three scenes each, 17 frames."""
    return render_people("test", 32, frames=17)


@pytest.fixture(scope="session")
def noise() -> np.random.Generator:
    return np.random.default_rng(0)
