"""A picture that people look at: for each clip the reference, what really happened, what models made, and the sound."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frames = NDArray[np.uint8]
Float = NDArray[np.float32]

CELL = 96
"""Side of a frame on the sheet."""
TIMES = 8
"""Frames of a strip, spread over the clip."""
_GAP = 6
_MARGIN = 28
_LABEL = 118
_LEFT = 232
_PLOT = 84
_HEADER = 74
_CAPTIONED = 318
"""Height of the reference's four frames with six lines of caption below."""
_PAPER, _INK, _FAINT, _SOUND = (250, 249, 246), (34, 38, 46), (122, 128, 138), (214, 218, 224)
_CURVES = ((34, 38, 46), (226, 98, 38), (38, 120, 196), (84, 150, 74))


@dataclass(frozen=True, slots=True)
class SheetClip:
    """One block of the sheet.

    Attributes:
        title: one line; `text`: wrapped below the reference.
        reference: uint8 `[F, H, W, 3]`.
        strips: by label, uint8 `[F, H, W, 3]`, all as long as the sound.
        audio: float32 `[n]`, 16 kHz.
        curves: by label, `[F]` mouth opening over the clip; each is drawn between its own least and greatest value.
    """

    title: str
    text: str
    reference: Frames
    strips: Mapping[str, Frames]
    audio: Float
    curves: Mapping[str, Float] = field(default_factory=dict)


def contact_sheet(clips: Sequence[SheetClip], *, title: str, subtitle: str = "") -> Frames:
    """The sheet, uint8 `[height, width, 3]`; see `sheet_size`.

    Raises:
        ValueError: no clips, or strips whose number differs between clips.
    """
    strips = {len(clip.strips) for clip in clips}
    if len(strips) != 1:
        raise ValueError("a contact sheet needs clips with one number of strips")
    width, height = sheet_size(len(clips), strips.pop())
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 20), title, fill=_INK, font=_font(24))
    pen.text((_MARGIN, 50), subtitle, fill=_FAINT, font=_font(14))
    top = _HEADER
    for clip in clips:
        pen.line((_MARGIN, top, width - _MARGIN, top), fill=_SOUND, width=1)
        _block(sheet, clip, top + 14)
        top += _block_height(len(clip.strips))
    return np.asarray(sheet, np.uint8)


def sheet_size(clips: int, strips: int) -> tuple[int, int]:
    """Width and height in pixels."""
    width = 2 * _MARGIN + _LEFT + _LABEL + TIMES * (CELL + _GAP) - _GAP
    return width, _HEADER + clips * _block_height(strips) + 8


def _block_height(strips: int) -> int:
    return 14 + max(strips * (CELL + _GAP) + _PLOT, _CAPTIONED) + 22


def _block(sheet: Image.Image, clip: SheetClip, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, top), clip.title, fill=_INK, font=_font(17))
    for number, frame in enumerate(_chosen(clip.reference, 4)):
        place = (_MARGIN + number % 2 * (CELL + 4), top + 28 + number // 2 * (CELL + 4))
        sheet.paste(_picture(frame), place)
    lines = textwrap.wrap(clip.text, 34)
    pen.multiline_text((_MARGIN, top + 34 + 2 * (CELL + 4)), "\n".join(lines), fill=_FAINT, font=_font(12), spacing=3)
    left = _MARGIN + _LEFT + _LABEL
    for row, (label, frames) in enumerate(clip.strips.items()):
        y = top + row * (CELL + _GAP)
        colour = _CURVES[row % len(_CURVES)]
        pen.multiline_text(
            (left - _LABEL, y + CELL // 2 - 16), "\n".join(textwrap.wrap(label, 15)), fill=colour, font=_font(14)
        )
        for number, frame in enumerate(_chosen(frames, TIMES)):
            sheet.paste(_picture(frame), (left + number * (CELL + _GAP), y))
    y = top + len(clip.strips) * (CELL + _GAP)
    pen.multiline_text((left - _LABEL, y + 18), "sound and\nmouth opening", fill=_FAINT, font=_font(13))
    sheet.paste(_plot(clip, TIMES * (CELL + _GAP) - _GAP), (left, y))


def _plot(clip: SheetClip, width: int) -> Image.Image:
    """Sound as a filled envelope, curves over it; drawn twice as large and reduced, for smooth lines.

    Times are those of the strip above: the first and last frame are drawn half a cell from the edges.
    """
    scale = 2
    w, h = width * scale, _PLOT * scale
    plot = Image.new("RGB", (w, h), _PAPER)
    pen = ImageDraw.Draw(plot)
    first, last = CELL * scale / 2, w - CELL * scale / 2
    columns = np.linspace(0, max(clip.audio.size - 1, 1), 400).astype(int)
    blocks = np.split(np.abs(clip.audio), columns[1:-1]) if clip.audio.size > 400 else [np.abs(clip.audio)]
    loud = np.array([block.max() if block.size else 0.0 for block in blocks])
    loud = loud / max(float(loud.max()), 1e-3) * (h * 0.44)
    x = np.linspace(first, last, len(loud))
    outline = [*zip(x, h / 2 - loud, strict=True), *zip(x[::-1], h / 2 + loud[::-1], strict=True)]
    pen.polygon([(float(a), float(b)) for a, b in outline], fill=_SOUND)
    for number, curve in enumerate(clip.curves.values()):
        low, high = float(curve.min()), float(curve.max())
        level = (curve - low) / max(high - low, 1e-6)
        across = np.linspace(first, last, len(curve))
        points = [(float(a), float(h * 0.92 - b * h * 0.84)) for a, b in zip(across, level, strict=True)]
        pen.line(points, fill=_CURVES[number % len(_CURVES)], width=2 * scale, joint="curve")
    return plot.resize((width, _PLOT), Image.Resampling.LANCZOS)


def _chosen(frames: Frames, count: int) -> list[Frames]:
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _picture(frame: Frames) -> Image.Image:
    return Image.fromarray(frame).resize((CELL, CELL), Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
