"""progress.json and its neighbours."""

import json
from pathlib import Path

import pytest

from helios_jobs.train.progress import Progress, count_starts, noticed, write_json


def _read(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "progress.json").read_text())
    return found


def test_steps_are_written_seldom_and_phases_at_once(tmp_path: Path) -> None:
    """Between two writes updates are kept; a new phase takes them along."""
    progress = Progress(tmp_path, total_steps=10, restarts=2, interval=3600)
    progress.phase("training")
    progress.update(step=3, loss=0.5)
    assert _read(tmp_path)["step"] == 0
    progress.phase("exporting")
    seen = _read(tmp_path)
    assert (seen["phase"], seen["step"], seen["loss"], seen["restarts"]) == ("exporting", 3, 0.5, 2)


def test_a_full_disk_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress that cannot be written is said in the log, and the job goes on."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    Progress(tmp_path, total_steps=1).phase("training")
    assert "No space left on device" in capsys.readouterr().out


def test_nothing_is_left_beside_a_written_file(tmp_path: Path) -> None:
    """A file is put in place by one rename."""
    write_json(tmp_path / "result.json", {"reason": "Completed"})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_starts_are_counted_over_epochs(tmp_path: Path) -> None:
    """The count is in the job's folder, which all epochs share."""
    assert count_starts(tmp_path) == 0
    assert count_starts(tmp_path, add=1) == 1
    assert count_starts(tmp_path, add=1) == 2
    assert count_starts(tmp_path) == 2


def test_a_notice_is_seen(tmp_path: Path) -> None:
    """The cell's notice.json is what asks a job to leave."""
    assert not noticed(tmp_path)
    write_json(tmp_path / "notice.json", {"grace_s": 30})
    assert noticed(tmp_path)
