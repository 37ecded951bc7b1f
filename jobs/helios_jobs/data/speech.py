"""Speech-like sound and the known function from a waveform to a mouth.

`mouth_curve` looks at nothing but the waveform, so it gives the driving curve of synthesised and of recorded speech
alike; the renderer, the lip-sync metric and the quickstart all use this one function.

Formants of the three visemes are the textbook averages of /a/, /i/ and /u/ (Peterson and Barney, 1952).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FPS = 25
SAMPLE_RATE = 16_000
HOP = SAMPLE_RATE // FPS
"""Samples of sound under one video frame."""
VISEMES = ("open", "wide", "round")
SPEECH_LEVEL = 0.12
"""RMS that the loud frames of speech are brought to; `mouth_curve` expects it."""

_FORMANTS = np.array([[750, 1200, 2500], [300, 2300, 3000], [320, 800, 2300]], np.float32)
_BANDWIDTHS = np.array([90, 130, 200], np.float32)
_WINDOW = 1024
_INERTIA = (0.1, 0.22, 0.36, 0.22, 0.1)
"""Lips and jaw have mass: the mouth follows the sound smoothed over five frames."""

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Voice:
    """How somebody sounds: pitch in Hz, vocal-tract scale (formants are multiplied by it), syllables a second."""

    pitch: float = 140.0
    tract: float = 1.0
    rate: float = 4.5


def _formant_gains(size: int, tract: float) -> Float:
    """Magnitude of the three vowel filters and of the hiss, `[4, size // 2 + 1]`."""
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    centre = _FORMANTS[:, :, None] * tract
    resonance = 1 / (1 + ((hz - centre) / _BANDWIDTHS[None, :, None]) ** 2)
    vowels = (resonance * (centre / 500) ** 0.8 * np.array([1.0, 1.0, 0.25], np.float32)[None, :, None]).sum(1)
    hiss = 1 / (1 + ((hz - 5500) / 900) ** 2)
    gains = np.concatenate([vowels, hiss[None]]).astype(np.float32)
    return np.asarray(gains / np.sqrt((gains**2).mean(1, keepdims=True)), np.float32)


def _syllables(samples: int, rate: float, rng: np.random.Generator) -> Float:
    """How strongly each of the three vowels and the hiss sounds at each sample, `[4, samples]`."""
    steps = samples // 80 + 1
    weights = np.zeros((4, steps), np.float32)
    start = -int(rng.integers(0, 30))
    while start < steps:
        length = int(SAMPLE_RATE / 80 / rate * rng.uniform(0.7, 1.5))
        inside = np.arange(max(start, 0), min(start + length, steps))
        if rng.random() < 0.86:
            shape = np.sin(np.pi * (inside - start + 0.5) / length) ** 0.7
            weights[int(rng.integers(3)), inside] += rng.uniform(0.45, 1.0) * shape
            onset = inside[: max(2, length // 6)]
            weights[3, onset] += 0.12 * rng.random()
        start += length
    positions = np.arange(samples) / 80
    return np.stack([np.interp(positions, np.arange(steps), row) for row in weights]).astype(np.float32)


def synthesise(samples: int, *, seed: int, voice: Voice | None = None) -> Float:
    """Vowels, hisses and pauses of one voice.

    Returns:
        float32 `[samples]` at 16 kHz, the same for the same arguments.
    """
    voice = voice or Voice()
    rng = np.random.default_rng([seed, 0x53])
    steps = samples // 80 + 2
    drift = np.interp(np.arange(samples) / 80, np.arange(steps)[::25], rng.normal(0, 0.08, steps)[::25])
    phase = np.cumsum(voice.pitch * (1 + drift) / SAMPLE_RATE)
    size = 1 << (samples - 1).bit_length()
    buzz = np.fft.rfft((phase % 1.0 - 0.5).astype(np.float32), size)
    noise = np.fft.rfft(rng.standard_normal(samples).astype(np.float32), size)
    gains = _formant_gains(size, voice.tract)
    sources = np.stack([buzz, buzz, buzz, noise * (np.sqrt(np.mean(np.abs(buzz) ** 2) / samples) * 0.5)])
    voiced = np.fft.irfft(sources * gains, size)[:, :samples].astype(np.float32)
    voiced /= np.sqrt((voiced**2).mean(1, keepdims=True)) + 1e-6
    sound = (voiced * _syllables(samples, voice.rate, rng)).sum(0) * (SPEECH_LEVEL * 1.15)
    return np.asarray(np.clip(sound, -1, 1), np.float32)


def normalise(audio: Float) -> Float:
    """Recorded speech at the level the mouth function expects: loud frames (95th percentile) at `SPEECH_LEVEL`.

    Sound that is nearly silent (below -54 dBFS) stays as it is.
    """
    if audio.size < HOP:
        return audio.astype(np.float32)
    frames = audio[: audio.size // HOP * HOP].reshape(-1, HOP)
    loud = float(np.percentile(np.sqrt((frames**2).mean(1)), 95))
    return np.asarray(np.clip(audio * (SPEECH_LEVEL / loud if loud > 0.002 else 1.0), -1, 1), np.float32)


def mouth_curve(audio: Float) -> Float:
    """The mouth that a waveform asks for.

    Loudness opens it; energy near a high first formant opens it further; a high second formant spreads it and a low
    one rounds it. Hiss above 4 kHz does not count.

    Args:
        audio: float32 `[n]` at 16 kHz, speech at `SPEECH_LEVEL` (see `normalise`).

    Returns:
        float32 `[ceil(n / 640), 3]` in 0..1: open, wide, round, one row a video frame.
    """
    count = -(-audio.size // HOP)
    pad = (_WINDOW - HOP) // 2
    padded = np.zeros(count * HOP + 2 * pad, np.float32)
    padded[pad : pad + audio.size] = audio
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:count]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32))) ** 2
    hz = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)

    def band(low: float, high: float) -> NDArray[np.float64]:
        return np.asarray(power[:, (hz >= low) & (hz < high)].sum(1))

    close, tall, back, front = band(180, 480), band(560, 1000), band(600, 1500), band(1700, 3400)
    loudness = np.sqrt(band(120, 3600) * 2 / (_WINDOW**2 * 0.375)) / SPEECH_LEVEL
    drive = np.clip((loudness - 0.06) / 0.9, 0, 1) ** 0.8
    tallness = tall / (tall + 0.8 * close + 1e-3)
    spread = np.clip(2.0 * np.sqrt(front / (front + back + 1e-3)) - 0.6, 0, 1)
    curve = np.stack(
        [drive * (0.4 + 0.6 * tallness), drive * spread, drive * (1 - spread) * np.clip(1.15 - tallness, 0, 1)], axis=1
    )
    padded_curve = np.pad(curve, ((2, 2), (0, 0)), mode="edge")
    smooth = sum(weight * padded_curve[i : i + count] for i, weight in enumerate(_INERTIA))
    return np.asarray(np.clip(smooth, 0, 1), np.float32)
