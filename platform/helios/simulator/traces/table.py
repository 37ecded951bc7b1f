"""CSV files as columns of text and of numbers, with every problem of a file at once: row, column, what was expected.

A file is read as a whole or not at all. `.csv`, `.csv.xz` and `.csv.gz` are told apart by their names.
"""

import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from helios.errors import Problem, SpecError, nearest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHOWN = 20
"""Problems of a file that an error shows; the rest is counted."""
MAX_BYTES = 512 * 2**20
"""Of a file's text; about eight million jobs."""
SUFFIXES = (".csv", ".csv.xz", ".csv.gz")
IGNORED = "x_"
"""Columns with names that begin so are passed over."""


class Findings:
    """What is wrong with one file, in the order of its rows."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._count = 0
        self._first: list[Problem] = []

    def add(self, line: int, column: str, message: str, *, value: str = "", near: str = "") -> None:
        """Note one problem; `line` counts from 1, the header's, and is 0 where the file as a whole is meant."""
        self._count += 1
        self._first.append(Problem(message, self.file, line, 0, column, value, near))
        if len(self._first) > 4 * SHOWN:
            self._first = self._ordered()

    def stop(self) -> None:
        """Raise `SpecError` if anything was found."""
        if not self._count:
            return
        shown = self._ordered()
        if self._count > len(shown):
            shown.append(Problem(f"and {self._count - len(shown)} more problems", self.file))
        raise SpecError(shown, hint="nothing of the file was loaded")

    def _ordered(self) -> list[Problem]:
        return sorted(self._first, key=lambda one: one.line)[:SHOWN]


@dataclass(frozen=True)
class Table:
    """A file's cells as text.

    Attributes:
        columns: cells by column name, each in the order of the rows; blanks around them are gone.
        lines: line of the file that each row ends on, `[N]`; the header is on line 1.
        findings: collects what is wrong; whoever has looked at all columns calls `findings.stop()`.
    """

    file: str
    columns: Mapping[str, Sequence[str]]
    lines: Ints
    findings: Findings

    def __len__(self) -> int:
        return len(self.lines)

    def wrong(self, column: str, bad: Bools, expected: str) -> None:
        """Note that cells of a column are not what was expected of them."""
        cells = self.columns[column]
        for row in np.flatnonzero(bad).tolist():
            self.findings.add(int(self.lines[row]), column, f"expected {expected}, got {_shown(cells[row])}")

    def numbers(
        self, column: str, expected: str, *, least: float, most: float, above: bool = False, blank: float | None = None
    ) -> Floats:
        """A column of numbers; what is none, or not between `least` and `most`, is noted and comes back as `least`.

        Args:
            column: its name.
            expected: what a cell should be, for the message: "seconds, above 0".
            least: smallest number allowed.
            most: largest number allowed.
            above: whether `least` itself is not allowed.
            blank: what an empty cell stands for; None where it must not be empty.
        """
        cells = self.columns[column]
        empty = np.fromiter((not cell for cell in cells), np.bool_, len(cells))
        values = _floats(cells)
        inside = (values > least if above else values >= least) & (values <= most)
        wrong = ~inside & ~empty if blank is not None else ~inside
        self.wrong(column, wrong, expected)
        values[wrong] = least
        if blank is not None:
            values[empty] = blank
        return values

    def whole(self, column: str, expected: str, *, least: int, most: int, blank: int | None = None) -> Ints:
        """A column of whole numbers, as `numbers`."""
        values = self.numbers(column, expected, least=least, most=most, blank=blank)
        broken = values != np.floor(values)
        self.wrong(column, broken, expected)
        return np.floor(values).astype(np.int64)

    def words(self, column: str, known: Mapping[str, str], *, blank: str | None = None) -> list[str]:
        """A column of words, as what they stand for; upper and lower case are the same."""
        meanings = {word.casefold(): meaning for word, meaning in known.items()}
        found = []
        for cell, line in zip(self.columns[column], self.lines, strict=True):
            if not cell and blank is not None:
                found.append(blank)
                continue
            meaning = meanings.get(cell.casefold())
            if meaning is None:
                message = f"expected one of {', '.join(known)}, got {_shown(cell)}"
                self.findings.add(int(line), column, message, value=cell, near=nearest(cell, known))
            found.append(meaning if meaning is not None else cell)
        return found

    def texts(self, column: str, fits: Callable[[str], bool], expected: str, *, blank: str | None = None) -> list[str]:
        """A column of texts that each fit."""
        cells = self.columns[column]
        known = {cell: bool(fits(cell)) if cell or blank is None else True for cell in set(cells)}
        self.wrong(column, np.fromiter((not known[cell] for cell in cells), np.bool_, len(cells)), expected)
        return [cell or (blank or "") for cell in cells]


def read_table(path: Path, required: Collection[str], optional: Collection[str] = (), *, closed: bool = True) -> Table:
    """Read a file.

    Args:
        path: the file.
        required: columns that it must have.
        optional: columns that it may have.
        closed: whether it may have no others, so that a slip of the pen is not taken for a column that is not there.

    Raises:
        SpecError: where it cannot be read, a column is missing or unknown, or rows are of another length.
    """
    findings = Findings(str(path))
    text = _text(path, findings)
    findings.stop()
    header, rows, lines = _rows(text, findings)
    _judge(header, required, optional, findings, closed=closed)
    findings.stop()
    if not rows:
        findings.add(0, "", "has no rows below its header")
        findings.stop()
    wanted = {*required, *optional}
    cells = zip(*rows, strict=True)
    columns = {name: column for name, column in zip(header, cells, strict=True) if name in wanted}
    return Table(str(path), columns, np.array(lines, np.int64), findings)


def _text(path: Path, findings: Findings) -> str:
    if not path.name.endswith(SUFFIXES):
        findings.add(0, "", f"expected a file named *{', *'.join(SUFFIXES)}")
        return ""
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        findings.add(0, "", "no such file", near=nearest(path.name, siblings))
        return ""
    try:
        with _opened(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, lzma.LZMAError, EOFError, zlib.error) as error:
        findings.add(0, "", f"cannot be read: {error}")
        return ""
    if len(content) > MAX_BYTES:
        findings.add(0, "", f"has more than {MAX_BYTES // 2**20} MiB of text")
        return ""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        findings.add(line, "", f"is not UTF-8 text: byte 0x{content[error.start]:02x}")
        return ""


def _opened(path: Path) -> BinaryIO:
    if path.name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(path))
    return cast(BinaryIO, gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _rows(text: str, findings: Findings) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows as long as the header, and their lines; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if len(row) < 2 and not any(row):
                continue
            if not header:
                header = row
            elif len(row) != len(header):
                findings.add(reader.line_num, "", f"has {len(row)} cells where the header has {len(header)}")
            else:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        findings.add(reader.line_num, "", f"is not CSV: {error}")
    if not header and not rows:
        findings.add(0, "", "is empty: expected a header with the names of its columns")
    return header, rows, lines


def _judge(
    header: Sequence[str], required: Collection[str], optional: Collection[str], findings: Findings, *, closed: bool
) -> None:
    """Note columns that are missing, unknown or there twice; a header of numbers is no header."""
    known = [*required, *optional]
    for name in required:
        if header and name not in header:
            near = nearest(name, [one for one in header if one not in known])
            findings.add(1, "", f"has no column {name!r}; it has {_listed(header)}", near=near)
    for place, name in enumerate(header):
        if name in header[:place]:
            findings.add(1, name, "is the name of two columns")
        elif closed and name not in known and not name.startswith(IGNORED):
            message = f"unknown column; known are {_listed(known)}; a name that begins with {IGNORED} is passed over"
            findings.add(1, name, message, near=nearest(name, known))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(_shown(name)[1:-1] or "(no name)" for name in names)


def _floats(cells: Sequence[str]) -> Floats:
    """Numbers; NaN for what is none."""
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return np.fromiter(map(_float, cells), np.float64, len(cells))


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _shown(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")
