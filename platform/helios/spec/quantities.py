"""Quantities in the field's own notation: each is a pure parse and format pair, and `parse(format(x)) == x`.

accelerators   H100:8   H100            type and count of devices
share          H100:0.5                 a part of one device, to a thousandth, where parts may be asked for
cpus           8   0.5   500m           cores, to a thousandth
memory         512Gi   64Mi   1G   1024 bytes; Ki..Ei are powers of 1024, k..E of 1000
duration       30s   30m   1h30m   30d  seconds, to a millisecond; a plain number is seconds
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

MEMORY_UNITS = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
}  # fmt: skip
DURATION_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}

# Also the patterns of the JSON Schema, so they keep to what ECMA-262 and Python's `re` share.
ACCELERATORS_PATTERN = r"^[A-Za-z][A-Za-z0-9._-]{0,62}(:[1-9][0-9]{0,5})?$"
SHARES_PATTERN = r"^[A-Za-z][A-Za-z0-9._-]{0,62}(:([1-9][0-9]{0,5}|0?\.(?!0{1,3}$)[0-9]{1,3}))?$"
CPUS_PATTERN = r"^([0-9]{1,10}m|[0-9]{1,7}(\.[0-9]{1,3})?)$"
MEMORY_PATTERN = r"^[0-9]{1,19}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"
DURATION_PATTERN = (
    r"^(?=[0-9])([0-9]{1,6}(\.[0-9]{1,6})?d)?([0-9]{1,7}(\.[0-9]{1,6})?h)?([0-9]{1,9}(\.[0-9]{1,6})?m(?!s))?"
    r"([0-9]{1,10}(\.[0-9]{1,6})?s)?([0-9]{1,12}ms)?$"
)

MAX_MEMORY = 2**63 - 1
MAX_CPUS = 1_000_000
MAX_DURATION_S = 10 * 366 * 86_400
"""Ten years; longer is a slip of the pen, and sums of it stay exact in a float."""


class QuantityError(ValueError):
    """The text is no such quantity; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Accelerators:
    """Devices of one type, as `H100:8` says, or a part of one, as `H100:0.5` does.

    Attributes:
        count: whole devices; 0 where `share` is set.
        share: thousandths of one device, 1 to 999; 0 where whole devices are meant.
    """

    type: str
    count: int = 1
    share: int = 0

    @property
    def devices(self) -> float:
        """How many devices that is: `8.0`, or `0.5`."""
        return self.count + self.share / 1000

    def __str__(self) -> str:
        return format_accelerators(self)


def parse_accelerators(value: object) -> Accelerators:
    """Read `H100:8`; `H100` means one."""
    found = value if isinstance(value, Accelerators) else _accelerators(value, ACCELERATORS_PATTERN)
    if found is None or found.share:
        raise QuantityError(f"expected accelerators as TYPE:COUNT, like H100:8, got {shown(value)}")
    return found


def parse_shares(value: object) -> Accelerators:
    """Read `H100:8`, or a part of one device: `H100:0.5`."""
    found = value if isinstance(value, Accelerators) else _accelerators(value, SHARES_PATTERN)
    if found is not None:
        return found
    if isinstance(value, str) and re.match(r"^[^:]+:[0-9]*\.[0-9]*$", value):
        raise QuantityError(
            "expected whole devices, or a part of one to a thousandth: like H100:2, H100:0.5 or H100:0.125, "
            f"got {shown(value)}"
        )
    raise QuantityError(f"expected accelerators as TYPE:COUNT, like H100:8 or H100:0.5, got {shown(value)}")


def format_accelerators(accelerators: Accelerators) -> str:
    number = f"{accelerators.share / 1000:g}" if accelerators.share else str(accelerators.count)
    return f"{accelerators.type}:{number}"


def _accelerators(value: object, pattern: str) -> Accelerators | None:
    if not isinstance(value, str) or not re.match(pattern, value) or value.endswith("\n"):
        return None
    kind, _, number = value.partition(":")
    if "." in number:
        return Accelerators(kind, 0, int(Fraction(number) * 1000))
    return Accelerators(kind, int(number or 1))


def parse_cpus(value: object) -> float:
    """Read `8`, `0.5` or `500m` as cores, to a thousandth."""
    expected = f"expected CPU cores, like 8, 0.5 or 500m, got {shown(value)}"
    if isinstance(value, str):
        if not re.match(CPUS_PATTERN, value) or value.endswith("\n"):
            raise QuantityError(expected)
        cores = Fraction(value[:-1]) / 1000 if value.endswith("m") else Fraction(value)
    else:
        cores = _number(value, expected)
    if not 0 <= cores <= MAX_CPUS:
        raise QuantityError(f"expected between 0 and {MAX_CPUS} CPU cores, got {shown(value)}")
    milli = round(cores * 1000)
    if cores and abs(cores * 1000 - milli) > Fraction(1, 1000):
        raise QuantityError(f"CPU cores are counted to a thousandth, got {shown(value)}")
    return milli / 1000


def format_cpus(cores: float) -> str:
    """Write whole cores as `8` and parts as `500m`."""
    milli = round(cores * 1000)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def parse_memory(value: object) -> int:
    """Read `2Gi` as bytes; a part of a byte rounds up, as Kubernetes does."""
    expected = f"expected an amount of memory, like 2Gi, 512Mi or a number of bytes, got {shown(value)}"
    if isinstance(value, str):
        if not re.match(MEMORY_PATTERN, value) or value.endswith("\n"):
            raise QuantityError(expected)
        digits = value.rstrip("KMGTPEik")
        amount = Fraction(digits) * MEMORY_UNITS.get(value[len(digits) :], 1)
    else:
        amount = _number(value, expected)
    count = math.ceil(amount)
    if not 0 <= count <= MAX_MEMORY:
        raise QuantityError(f"expected between 0 and 8Ei of memory, got {shown(value)}")
    return count


def format_memory(count: int) -> str:
    """Write bytes in the largest power of 1024 that divides them."""
    for unit in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        if count and count % MEMORY_UNITS[unit] == 0:
            return f"{count // MEMORY_UNITS[unit]}{unit}"
    return str(count)


def parse_duration(value: object) -> float:
    """Read `1h30m` as seconds, to a millisecond."""
    expected = f"expected a duration, like 30s, 30m, 1h30m or 30d, got {shown(value)}"
    if isinstance(value, str):
        if not re.match(DURATION_PATTERN, value) or value.endswith("\n"):
            raise QuantityError(expected)
        parts = re.findall(r"([0-9.]+)(ms|[dhms])", value)
        milliseconds = sum((Fraction(number) * DURATION_UNITS_MS[unit] for number, unit in parts), Fraction(0))
    else:
        milliseconds = _number(value, expected) * 1000
    if not 0 <= milliseconds <= MAX_DURATION_S * 1000:
        raise QuantityError(f"expected a duration between 0 and 10 years, got {shown(value)}")
    return round(milliseconds) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds as days, hours, minutes, seconds and milliseconds: `1h30m`."""
    rest, text = round(seconds * 1000), ""
    for unit, size in DURATION_UNITS_MS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def shown(value: object, limit: int = 80) -> str:
    """`value` as a reader of YAML would write it, shortened."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a mapping"
    elif isinstance(value, list | tuple):
        text = "a list"
    else:
        text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _number(value: object, expected: str) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise QuantityError(expected)
    return Fraction(value)
