"""Text to speech by espeak-ng, started as a separate program (it is GPL-3; nothing of it is linked or imported)."""

import functools
import shutil
import subprocess
from pathlib import Path

from helios.errors import EngineError, nearest
from helios_jobs.serve.errors import LimitError, ProgramMissingError, RequestError

PROGRAM = "espeak-ng"
MAX_CHARACTERS = 4096
_TIMEOUT_S = 60.0


def speak(text: str, voice: str, path: Path) -> None:
    """Write `text` as spoken by `voice` (a language such as `en-us`, or a voice name) to `path`, a WAV file.

    Raises:
        RequestError: nothing to say, or a voice espeak-ng does not have; names the nearest one.
        LimitError: more than `MAX_CHARACTERS`.
        ProgramMissingError: espeak-ng is not installed.
        EngineError: espeak-ng failed.
    """
    if len(text) > MAX_CHARACTERS:
        raise LimitError(f"text: longer than {MAX_CHARACTERS} characters", reason="text_too_long", param="text")
    if not text.strip():
        raise RequestError("text: there is nothing to say", reason="empty_text", param="text")
    known = voices(_program())
    if voice not in known:
        near = nearest(voice, known)
        hint = f"did you mean {near!r}?" if near else f"`{PROGRAM} --voices` lists them"
        raise RequestError(f"voice: there is no voice {voice!r}", reason="unknown_voice", param="voice", hint=hint)
    _run(["-v", voice, "--stdin", "-w", str(path)], text)
    if not path.exists():  # espeak-ng writes no file where the text has no sound
        raise RequestError("text: there is nothing to say", reason="empty_text", param="text")


@functools.cache
def voices(program: str) -> frozenset[str]:
    """Languages (`en-us`, and `en` for the program's choice among them) and voice names `program` knows."""
    lines = _run(["--voices"], "", program=program).splitlines()[1:]
    columns = [line.split() for line in lines]
    return frozenset(name for row in columns if len(row) > 3 for name in (row[1], row[1].partition("-")[0], row[3]))


def _program() -> str:
    found = shutil.which(PROGRAM)
    if found is None:
        raise ProgramMissingError(
            f"speech from text needs the program {PROGRAM}, which is not installed where this service runs",
            reason="text_to_speech_unavailable",
            param="text",
            hint=f"install the package {PROGRAM}, or send audio_reference",
        )
    return found


def _run(arguments: list[str], stdin: str, *, program: str | None = None) -> str:
    command = [program or _program(), *arguments]
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", timeout=_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        raise EngineError(f"{PROGRAM} failed: {str(error.stderr).strip()[:200]}") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{PROGRAM} did not answer within {_TIMEOUT_S:g} s") from error
    return done.stdout
