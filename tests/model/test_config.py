"""Sizes that describe no network are refused where they are read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helios_model.config import LogMel, MotionConfig, SpeechFeatures, TextFeatures, WordTable, preset
from helios_model.wan_layout import read_wan_config, wan_document
from helios_model.weights import BundleError

FIELDS: list[tuple[Callable[..., object], str, str]] = [
    (WordTable, "text", "buckets"),
    (WordTable, "text", "tokens"),
    (TextFeatures, "text", "dim"),
    (TextFeatures, "text", "tokens"),
    (LogMel, "audio", "mels"),
    (LogMel, "audio", "tokens"),
    (SpeechFeatures, "audio", "dim"),
    (SpeechFeatures, "audio", "tokens"),
    (MotionConfig, "motion", "dim"),
]


@pytest.mark.parametrize("came", ["8", -8, 0, 2.5, True, None])
@pytest.mark.parametrize(("make", "part", "name"), FIELDS)
def test_a_count_is_a_whole_number_of_at_least_one(
    make: Callable[..., object], part: str, name: str, came: object
) -> None:
    """The error names the field, what came and what was expected."""
    with pytest.raises(ValueError, match=rf"{part}\.{name} is {came!r}, expected a whole number of at least 1"):
        make(**{name: came})


@pytest.mark.parametrize(("name", "came"), [("dim", "8"), ("dim", -8), ("tokens", 2.5)])
def test_a_wan_config_names_file_and_key(tmp_path: Path, name: str, came: object) -> None:
    """Bad numbers of the extension are an error of the bundle."""
    text, audio = TextFeatures(dim=8, tokens=4), SpeechFeatures(dim=8, tokens=4)
    document = wan_document(replace(preset("micro"), text=text, audio=audio, patch=2, prediction="velocity", size=None))
    document["_helios"]["audio"][name] = came
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=rf"config\.json .*audio\.{name} is {came!r}, expected"):
        read_wan_config(tmp_path)
