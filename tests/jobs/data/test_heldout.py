import wave
from pathlib import Path

import av
import pytest

from helios_jobs.data.heldout import PIXELS, main


def test_heldout_files_are_ordinary_media(tmp_path: Path) -> None:
    """The command writes an H.264 video of the asked length and a 16 kHz mono WAV just as long, and nothing else."""
    assert main(["--out", str(tmp_path), "--identity", "2", "--seconds", "1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reference.mp4", "speech.wav"]
    with av.open(str(tmp_path / "reference.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 25
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(pictures) == 25
    assert pictures[0].shape == (PIXELS, PIXELS, 3)
    with wave.open(str(tmp_path / "speech.wav")) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (1, 16000, 16000)


def test_heldout_refuses_a_senseless_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero seconds exits with 2 and a sentence, and writes nothing."""
    with pytest.raises(SystemExit) as exit_info:
        main(["--out", str(tmp_path), "--seconds", "0"])
    assert exit_info.value.code == 2
    assert "--seconds" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
