import numpy as np
import pytest

from helios_jobs.evaluate.contact_sheet import CELL, SheetClip, contact_sheet, sheet_size


def _clip(strips: int) -> SheetClip:
    grey = np.full((17, 32, 32, 3), 128, np.uint8)
    red = np.zeros((17, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    shown = {f"strip {number}": red for number in range(strips)}
    sound = np.sin(np.arange(17 * 640) / 9).astype(np.float32)
    return SheetClip(
        "Person",
        "a person with a long caption " * 6,
        grey,
        shown,
        sound,
        {"truth": np.linspace(0, 1, 17, dtype=np.float32)},
    )


@pytest.mark.parametrize(("clips", "strips"), [(1, 2), (3, 3)])
def test_the_sheet_has_the_promised_size(clips: int, strips: int) -> None:
    """Width and height are those of `sheet_size` for any number of clips and strips."""
    sheet = contact_sheet([_clip(strips)] * clips, title="Title", subtitle="Subtitle")
    width, height = sheet_size(clips, strips)
    assert sheet.shape == (height, width, 3)
    assert sheet.dtype == np.uint8


def test_every_frame_of_every_strip_is_on_it() -> None:
    """Two strips of eight red frames cover sixteen cells of the sheet."""
    sheet = contact_sheet([_clip(2)], title="Title").astype(int)
    red = (sheet[..., 0] > 240) & (sheet[..., 1] < 20) & (sheet[..., 2] < 20)
    assert red.sum() == 16 * CELL * CELL


def test_a_sheet_of_nothing_is_refused() -> None:
    """No clips, or clips that do not match, is a clear error."""
    with pytest.raises(ValueError, match="one number of strips"):
        contact_sheet([], title="")
    with pytest.raises(ValueError, match="one number of strips"):
        contact_sheet([_clip(1), _clip(2)], title="")
