"""The folder of traces is found where somebody says, or where it usually lies; else the error says how to name it."""

from pathlib import Path

import pytest

from helios.errors import InputError
from helios.simulator.traces.folder import PLACES, VARIABLE, trace_file, trace_folder


def test_the_option_goes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--traces` wins over the environment."""
    given, named = tmp_path / "given", tmp_path / "named"
    given.mkdir()
    named.mkdir()
    monkeypatch.setenv(VARIABLE, str(named))
    assert trace_folder(given) == given
    assert trace_folder() == named


def test_usual_places_are_looked_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, it is the folder beside or below the present one."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        trace_folder()
    assert all(place in caught.value.message for place in PLACES)
    assert str(tmp_path) in caught.value.message
    assert "--traces" in caught.value.hint
    assert VARIABLE in caught.value.hint
    (tmp_path / PLACES[1]).mkdir(parents=True)
    assert trace_folder() == Path(PLACES[1])


def test_a_folder_that_is_not_there_is_no_reason_to_look_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody named and is not there is an error that says who named it."""
    (tmp_path / PLACES[1]).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"--traces names .*gone, which is no folder"):
        trace_folder(tmp_path / "gone")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(InputError, match=rf"{VARIABLE} names .*gone, which is no folder"):
        trace_folder()


def test_a_file_that_is_not_there_has_a_nearest(folder: Path) -> None:
    """The nearest trace or file is said."""
    with pytest.raises(InputError, match=r"has no trace 'philly-2018' .did you mean 'philly-2017'"):
        trace_file(folder, "philly-2018", "philly.csv.xz")
    with pytest.raises(InputError, match=r"has no file 'philly.csv' .did you mean 'philly.csv.xz'"):
        trace_file(folder, "philly-2017", "philly.csv")
