import io
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import Problem, SpecError
from helios.spec import load_documents
from helios.spec.source import MAX_BYTES

JOB = "apiVersion: helios/v1\nkind: Job\nmetadata: {{name: {0}}}\nspec: {{entrypoint: run}}\n"


def problems(*paths: Path) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load_documents(paths)
    return caught.value.problems


def test_the_repository_is_valid(repository: Path) -> None:
    """cells/ and jobs/ load, and each document knows its file and line."""
    loaded = load_documents([repository / "cells", repository / "jobs"])
    assert {one.document.kind for one in loaded} >= {"Cell", "Curriculum", "Service"}
    assert all(Path(one.file).is_file() and one.line > 0 for one in loaded)
    assert not any(one.notes for one in loaded)


def test_folders_are_searched_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    """*.yaml and *.yml at any depth; dot files, dot folders and other files are left alone."""
    for place in ("b.yaml", "a.yml", "sub/deep/c.yaml", ".git/d.yaml", ".e.yaml", "f.json", "sub/g.txt"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(JOB.format(path.stem.strip(".")))
    assert [one.document.metadata.name for one in load_documents([tmp_path])] == ["a", "b", "c"]


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    """As itself, through its folder and through a link."""
    (tmp_path / "a.yaml").write_text(JOB.format("a"))
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    assert len(load_documents([tmp_path, tmp_path / "a.yaml", tmp_path / "link.yaml"])) == 1


def test_one_name_twice_points_to_the_first(tmp_path: Path) -> None:
    """Within a kind, across files and documents; the same name in two kinds is fine."""
    (tmp_path / "a.yaml").write_text(
        JOB.format("x") + "---\napiVersion: helios/v1\nkind: Tenant\nmetadata: {name: x}\n"
    )
    (tmp_path / "b.yaml").write_text("\n" + JOB.format("x"))
    (problem,) = problems(tmp_path)
    assert (problem.file, problem.line, problem.column) == (str(tmp_path / "b.yaml"), 4, 18)
    assert f"{tmp_path / 'a.yaml'}:1" in problem.message


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    """A file that cannot be read at all does not keep the others' problems back."""
    (tmp_path / "a.yaml").write_text("x: [")
    (tmp_path / "b.yaml").write_text("kind: Job\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    found = problems(tmp_path, tmp_path / "gone.yaml")
    assert [Path(problem.file).name for problem in found] == ["a.yaml", "b.yaml", "c.yaml", "gone.yaml"]


def test_text_that_is_not_utf_8_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: é\nb: ".encode() + b"\xe9\n")
    (problem,) = problems(path)
    assert "UTF-8" in problem.message
    assert (problem.line, problem.column, problem.value) == (2, 4, "byte 0xe9")


def test_utf_16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(JOB.format("x"), encoding="utf-16")
    assert "UTF-8" in problems(path)[0].message


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(JOB.format("x"), encoding="utf-8-sig")
    assert load_documents([path])[0].line == 1


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    """Also in a folder among files that are fine."""
    (tmp_path / "a.yaml").write_text(JOB.format("a"))
    (tmp_path / "b.yaml").touch()
    (problem,) = problems(tmp_path)
    assert (problem.file, problem.line) == (str(tmp_path / "b.yaml"), 1)


def test_a_yaml_of_another_tool_is_named(tmp_path: Path) -> None:
    """A YAML without apiVersion in a folder is an error, not something to skip."""
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    assert {problem.file for problem in problems(tmp_path)} == {str(tmp_path / "compose.yaml")}


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES * 10_000)  # sparse: 10 GiB that nobody could hold
    (problem,) = problems(path)
    assert "larger than 1024 KiB" in problem.message


def test_a_wrong_path_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text(JOB.format("x"))
    (problem,) = problems(tmp_path / "loca.yaml")
    assert problem.nearest == str(tmp_path / "local.yaml")
    assert problems(tmp_path / "none" / "x.yaml")[0].message == "no such file or folder"


def test_a_folder_without_yaml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "no *.yaml" in problems(tmp_path)[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(JOB.format("x"))
    path.chmod(0)
    assert "cannot be read" in problems(path)[0].message


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(JOB.format("x").encode())))
    (loaded,) = load_documents([Path("-")])
    assert (loaded.document.metadata.name, loaded.file) == ("x", "<stdin>")


@given(st.binary(max_size=80))
def test_any_bytes_give_problems_with_a_place(content: bytes) -> None:
    """Whatever a file holds, the answer names it, with a line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.yaml")
        path.write_bytes(content)
        assert all(problem.file == str(path) and problem.line > 0 for problem in problems(path))
