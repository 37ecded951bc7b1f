"""Files of a person whom no training run has seen: `python -m helios_jobs.data.heldout --out DIR`.

`reference.mp4` shows the person (turning, a board moving across) in one scene; `speech.wav` is what the same voice says
in another. Both come from the test split.
"""

import argparse
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helios_jobs.data.world import FPS, SAMPLE_RATE, Clip, identity, render_clip, scene
from helios_jobs.serve.media import encode_video

PIXELS = 256
"""Side of the video: an ordinary small video; whoever uses it scales it down."""


def heldout_clips(number: int, seconds: float) -> tuple[Clip, Clip]:
    """The reference clip of test person `number` at `PIXELS`, and a clip in another scene whose sound is the speech."""
    person, frames = identity("test", number), max(1, round(seconds * FPS))
    reference = render_clip(
        person, scene("test", number, 0), frames=frames, seed=2 * number + 1, occluder=True, size=PIXELS
    )
    return reference, render_clip(person, scene("test", number, 1), frames=frames, seed=2 * number + 2)


def write_wav(path: Path, audio: NDArray[np.float32]) -> None:
    """Mono 16-bit PCM at 16 kHz, written whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with wave.open(str(partial), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(SAMPLE_RATE)
            sound.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helios_jobs.data.heldout", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for reference.mp4 and speech.wav")
    parser.add_argument("--identity", type=int, default=0, help="number of the person in the test split (default 0)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of both files (default 4)")
    given = parser.parse_args(arguments)
    if given.identity < 0:
        parser.error("--identity is 0 or more")
    if not 0.04 <= given.seconds <= 60:
        parser.error("--seconds is 0.04 to 60")
    reference, spoken = heldout_clips(given.identity, given.seconds)
    given.out.mkdir(parents=True, exist_ok=True)
    encode_video(given.out / "reference.mp4", reference.frames, fps=FPS, audio=reference.audio)
    write_wav(given.out / "speech.wav", spoken.audio)
    print(f"{given.out / 'reference.mp4'}\n{given.out / 'speech.wav'}\n{reference.caption}")  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
