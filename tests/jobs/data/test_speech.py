import numpy as np
import pytest

from helios_jobs.data.speech import HOP, SPEECH_LEVEL, Voice, mouth_curve, normalise, synthesise


def _tone(hz: float, samples: int, level: float = SPEECH_LEVEL) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.asarray(level * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(samples) / 16000), np.float32)


def test_silence_keeps_the_mouth_closed() -> None:
    """Silence asks for no opening, spreading or rounding."""
    assert np.abs(mouth_curve(np.zeros(20 * HOP, np.float32))).max() == 0


def test_louder_speech_opens_wider() -> None:
    """The opening follows the envelope of the same sound."""
    sound = synthesise(100 * HOP, seed=1)
    ramp = np.linspace(0, 1, sound.size, dtype=np.float32)
    opened = mouth_curve(sound * ramp)[:, 0]
    assert opened[75:].mean() > 2 * opened[:25].mean()


@pytest.mark.parametrize(("hz", "viseme"), [(800, 0), (2400, 1), (320, 2)])
def test_formant_regions_make_their_viseme(hz: float, viseme: int) -> None:
    """Energy near 800 Hz opens, near 2.4 kHz spreads and near 320 Hz alone rounds the mouth."""
    curves = {other: mouth_curve(_tone(other, 20 * HOP))[10] for other in (800, 2400, 320)}
    assert max(curves, key=lambda other: curves[other][viseme]) == hz


def test_the_mouth_follows_its_own_sound_only() -> None:
    """The curve of one sound correlates with that sound's envelope and not with another's."""
    sounds = [synthesise(200 * HOP, seed=seed) for seed in range(2)]
    curves = [mouth_curve(sound)[:, 0] for sound in sounds]
    envelope = np.sqrt((sounds[0].reshape(-1, HOP) ** 2).mean(1))
    assert np.corrcoef(curves[0], envelope)[0, 1] > 0.7
    assert abs(np.corrcoef(curves[1], envelope)[0, 1]) < 0.4


def test_every_frame_of_sound_gets_a_mouth() -> None:
    """n samples give ceil(n / 640) rows, also for odd n, and adding sound at the end leaves earlier rows alone."""
    sound = synthesise(50 * HOP, seed=2)
    assert mouth_curve(sound[: 10 * HOP + 1]).shape == (11, 3)
    np.testing.assert_allclose(mouth_curve(sound)[:20], mouth_curve(sound[: 30 * HOP])[:20], atol=1e-6)


def test_recorded_level_does_not_matter() -> None:
    """Speech recorded ten times quieter drives the same mouth after `normalise`; near silence is left alone."""
    sound = synthesise(100 * HOP, seed=3, voice=Voice(pitch=110))
    np.testing.assert_allclose(
        mouth_curve(normalise(sound)), mouth_curve(normalise((sound / 10).astype(np.float32))), atol=0.01
    )
    hush = np.full(10 * HOP, 1e-4, np.float32)
    np.testing.assert_array_equal(normalise(hush), hush)
