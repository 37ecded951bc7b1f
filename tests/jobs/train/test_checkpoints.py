"""Bundles and checkpoint folders: whole or not there."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from helios.errors import InputError, NoSpaceError
from helios_jobs.train.checkpoints import (
    SNAPSHOT,
    bundle_digest,
    parent_digest,
    publish,
    remove_remains,
    require_space,
)


def _fill(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / "lineage.json").write_text(json.dumps({"codec": "linear", "stage": "old"}))

    return write


def test_a_bundle_replaces_the_one_before_and_says_where_it_is_from(tmp_path: Path) -> None:
    """One folder is left, its lineage has the objective's facts and ours, and its digest is of what is in it."""
    folder = tmp_path / "bundles" / "uid"
    publish(folder, _fill("one"), {"stage": "t2v"})
    digest = publish(folder, _fill("two"), {"stage": "t2v"})
    assert [path.name for path in folder.parent.iterdir()] == ["uid"]
    assert (folder / "model.safetensors").read_text() == "two"
    assert json.loads((folder / "lineage.json").read_text()) == {"codec": "linear", "stage": "t2v", "sha256": digest}
    assert bundle_digest(folder) == digest


def test_a_failed_export_leaves_the_bundle_before(tmp_path: Path) -> None:
    """What was published stays; the draft is gone."""
    folder = tmp_path / "uid"
    publish(folder, _fill("one"), {})

    def broken(draft: Path) -> None:
        (draft / "model.safetensors").write_text("tw")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        publish(folder, broken, {})
    assert [path.name for path in tmp_path.iterdir()] == ["uid"]
    assert (folder / "model.safetensors").read_text() == "one"


def test_only_recorded_checkpoints_stay(tmp_path: Path) -> None:
    """Folders that Ray Train's record does not name are what a crash left, and go."""
    for name in ("checkpoint_00000001_aa", "checkpoint_00000002_bb", "checkpoint_00000003_cc"):
        (tmp_path / name).mkdir()
    record = {
        "checkpoint_results": [{"checkpoint_dir_name": "checkpoint_00000001_aa"}],
        "latest_checkpoint_result": {"checkpoint_dir_name": "checkpoint_00000002_bb"},
    }
    (tmp_path / SNAPSHOT).write_text(json.dumps(record))
    remove_remains(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "checkpoint_00000001_aa",
        "checkpoint_00000002_bb",
    ]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the folder, what is needed and what is free."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    require_space(tmp_path, 10 * 2**20, "a checkpoint")
    with pytest.raises(NoSpaceError, match=r"a checkpoint needs 264 MiB and .* has 100 MiB free"):
        require_space(tmp_path, 200 * 2**20, "a checkpoint")


def test_a_missing_parent_is_the_callers_error(tmp_path: Path) -> None:
    """An input checkpoint that is gone is not retried."""
    assert parent_digest(None) == ""
    with pytest.raises(InputError, match="is not there"):
        parent_digest(tmp_path / "gone")
