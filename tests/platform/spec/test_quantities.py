import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.spec import quantities as q

TYPES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,62}", fullmatch=True)


@given(st.integers(0, q.MAX_MEMORY))
def test_memory_survives_format_and_parse(count: int) -> None:
    """Any number of bytes is read back exactly, and what is written is what the schema takes."""
    text = q.format_memory(count)
    assert q.parse_memory(text) == count
    assert re.match(q.MEMORY_PATTERN, text)


@given(st.integers(0, q.MAX_CPUS * 1000))
def test_cpus_survive_format_and_parse(milli: int) -> None:
    """Any thousandth of a core is read back exactly, from text and from a number."""
    cores = milli / 1000
    assert q.parse_cpus(q.format_cpus(cores)) == cores == q.parse_cpus(cores)
    assert re.match(q.CPUS_PATTERN, q.format_cpus(cores))


@given(st.integers(0, q.MAX_DURATION_S * 1000))
def test_durations_survive_format_and_parse(milliseconds: int) -> None:
    """Any millisecond is read back exactly, from text and from a number of seconds."""
    seconds = milliseconds / 1000
    assert q.parse_duration(q.format_duration(seconds)) == seconds == q.parse_duration(seconds)
    assert re.match(q.DURATION_PATTERN, q.format_duration(seconds))


@given(TYPES, st.integers(1, 999_999))
def test_accelerators_survive_format_and_parse(kind: str, count: int) -> None:
    """Any type and count is read back, from text and from itself."""
    accelerators = q.Accelerators(kind, count)
    assert q.parse_accelerators(str(accelerators)) == accelerators == q.parse_accelerators(accelerators)


@given(TYPES, st.integers(1, 999))
def test_shares_survive_format_and_parse(kind: str, thousandths: int) -> None:
    """Any thousandth of a device is read back, and is no answer where only whole devices may be asked for."""
    share = q.Accelerators(kind, 0, thousandths)
    assert q.parse_shares(str(share)) == share == q.parse_shares(share)
    assert re.match(q.SHARES_PATTERN, str(share))
    with pytest.raises(q.QuantityError):
        q.parse_accelerators(str(share))


@pytest.mark.parametrize("text", ["H100:1.5", "H100:0.0", "H100:0.0005", "H100:2.0", "H100:."])
def test_neither_whole_devices_nor_a_part_of_one_is_explained(text: str) -> None:
    """A gang shares one device or has whole ones; what lies between is refused with examples of both."""
    with pytest.raises(q.QuantityError, match=r"whole devices, or a part of one .* H100:0\.5"):
        q.parse_shares(text)


PARSERS: tuple[Callable[[object], object], ...] = (
    q.parse_memory,
    q.parse_cpus,
    q.parse_duration,
    q.parse_accelerators,
    q.parse_shares,
)


@given(st.sampled_from(PARSERS), st.one_of(st.text(max_size=12), st.floats(), st.integers(), st.none(), st.booleans()))
def test_anything_else_is_refused_in_words(parse: Callable[[object], object], value: object) -> None:
    """A parser returns a quantity or raises QuantityError; nothing else ever."""
    with contextlib.suppress(q.QuantityError):
        parse(value)


@pytest.mark.parametrize(
    ("text", "count"),
    [("512Gi", 512 * 2**30), ("64Mi", 64 * 2**20), ("1k", 1000), ("1.5Gi", 3 * 2**29), ("7", 7), ("0.1", 1), (12, 12)],
)
def test_memory_in_the_notation_of_kubernetes(text: object, count: int) -> None:
    """Powers of 1024 and of 1000, parts of a unit, plain bytes; a part of a byte rounds up."""
    assert q.parse_memory(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30m", 1800), ("2h", 7200), ("30d", 2_592_000), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400),
     (45, 45), ("1d2h3m4s5ms", 93_784.005)],
)  # fmt: skip
def test_durations_in_the_notation_of_go(text: object, seconds: float) -> None:
    """Units from days to milliseconds, in that order; a plain number is seconds."""
    assert q.parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "cores"), [("8", 8), ("500m", 0.5), (0.5, 0.5), ("0.25", 0.25), (3, 3)])
def test_cpus_in_the_notation_of_kubernetes(text: object, cores: float) -> None:
    assert q.parse_cpus(text) == cores


@pytest.mark.parametrize(("text", "expected"), [("H100:8", ("H100", 8)), ("H100", ("H100", 1))])
def test_accelerators_are_a_type_and_a_count(text: str, expected: tuple[str, int]) -> None:
    assert (q.parse_accelerators(text).type, q.parse_accelerators(text).count) == expected


SLIPS: dict[Callable[[object], object], tuple[object, ...]] = {
    q.parse_memory: ("2GB", "2gi", "-1", "", "Gi", "1 Gi", "2Gi\n", "9Ei", True, None, []),
    q.parse_duration: ("", "30", "1m1h", "h", "1y", "-1s", "5s\n", "11000d", False),
    q.parse_cpus: ("", "1x", "-1", "0.0001", 0.0001, "1e3", "8\n", "2000000", float("inf")),
    q.parse_accelerators: ("", "H100:0", "H100:-1", "H100:", ":8", "8", 8, "H100:8\n", "H100:0.5"),
    q.parse_shares: ("", "H100:0", "H100:-1", ":0.5", "0.5", 0.5, "H100:0.5\n", "H100:1e-3"),
}


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in SLIPS.items() for text in texts])
def test_slips_of_the_pen_are_refused(parse: Callable[[object], object], text: object) -> None:
    """Wrong units, signs, order, emptiness, trailing newlines and absurd sizes do not pass for quantities."""
    with pytest.raises(q.QuantityError):
        parse(text)
