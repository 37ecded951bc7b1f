"""JSON files are written whole or not at all."""

from pathlib import Path

import pytest

from helios.durable import read_json, write_json


def test_written_whole_and_read_back(tmp_path: Path) -> None:
    """What was written is read; a private file is the owner's alone; no temporary file stays."""
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1}, private=True)
    write_json(path, {"a": 2}, private=True)
    assert read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Something that is no JSON leaves the old content and nothing beside it."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_what_is_no_object_reads_as_nothing(tmp_path: Path, content: str | None) -> None:
    """A missing file, half a file or another kind of JSON is None."""
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert read_json(path) is None
