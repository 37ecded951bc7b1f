import threading
from pathlib import Path

import numpy as np
import pytest

from helios_jobs.data.world import Clips
from helios_jobs.evaluate import probes as module
from helios_jobs.evaluate.metrics import identity_score, lip_sync, psnr
from helios_jobs.evaluate.probes import IdentityProbe, Probes, load_probes, protocol_hash, through_codec
from helios_model.codec import PatchCodec


def test_mouths_are_read_on_people_never_seen(probes: Probes, heldout_clips: Clips, probe_codec: PatchCodec) -> None:
    """Correlation with the true opening >= 0.88 on clean and >= 0.70 on codec frames; about 0 with other sounds."""
    truth = heldout_clips.mouth[..., 0]
    clean = lip_sync(probes.mouth.curve(heldout_clips.frames)[..., 0], truth)
    coded = lip_sync(probes.mouth.curve(through_codec(probe_codec, heldout_clips.frames))[..., 0], truth)
    assert clean.own.value >= 0.88
    assert coded.own.value >= 0.70
    assert abs(clean.shuffled.value) < 0.12


@pytest.mark.parametrize("name", ["metric", "reward"])
def test_people_are_recognised_in_another_scene(
    name: str, probes: Probes, heldout_clips: Clips, probe_codec: PatchCodec
) -> None:
    """Both embeddings find >= 90% of 32 unseen people in a third scene, from codec frames too."""
    probe: IdentityProbe = getattr(probes, name)
    frames = heldout_clips.frames.reshape(32, 3, *heldout_clips.frames.shape[1:])
    gallery = probe.embed(frames[:, 2])
    for queries in (frames[:, 0], through_codec(probe_codec, frames[:, 0])):
        score = identity_score(probe.embed(queries), gallery)
        assert score.retrieval.value >= 0.9
        assert score.similarity.value > score.impostors.value + 0.5


def test_the_codec_degrades_as_the_models_does(probe_codec: PatchCodec, heldout_clips: Clips) -> None:
    """Held-out frames come back from the linear codec at 26 to 36 dB, in shape."""
    coded = through_codec(probe_codec, heldout_clips.frames)
    assert coded.shape == heldout_clips.frames.shape
    assert 26 < psnr(heldout_clips.frames, coded).mean() < 36


def test_embeddings_are_unit_and_batched(probes: Probes, heldout_clips: Clips) -> None:
    """Embeddings have length 1 and do not depend on what else is in the batch."""
    together = probes.metric.embed(heldout_clips.frames[:4])
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(probes.metric.embed(heldout_clips.frames[2]), together[2], atol=1e-4)


def test_probes_are_fitted_once_a_folder(probes: Probes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four that come at once fit once, read equal probes back, and leave no draft behind."""
    fits: list[int] = []

    def fit() -> Probes:
        fits.append(1)
        return probes

    monkeypatch.setattr(module, "fit_probes", fit)
    found: list[Probes] = []
    threads = [threading.Thread(target=lambda: found.append(load_probes(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fits) == 1
    assert len(found) == 4
    np.testing.assert_array_equal(found[-1].mouth.weights, probes.mouth.weights)
    np.testing.assert_array_equal(found[-1].reward.projection, probes.reward.projection)
    assert found[0].reward.features == "edges"
    assert not list(tmp_path.glob("*.partial"))


def test_the_protocol_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash that goes with every number is twelve hex digits; each piece of code that gives it meaning is in it."""
    name = protocol_hash()
    assert len(bytes.fromhex(name)) == 6
    assert protocol_hash() == name
    read = Path.read_bytes
    for part in ("probes.py", "metrics.py", "heldout.py", "codec.py"):
        protocol_hash.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path, part=part: read(path) + b"#" * (path.name == part))
            assert protocol_hash() != name
    protocol_hash.cache_clear()
    assert protocol_hash() == name
