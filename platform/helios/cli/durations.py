"""Times as people type them after an option: `24h`, `7d`."""

from helios.errors import InputError


def seconds_in(text: str, *, option: str) -> float:
    """Read a duration. Raises `InputError` that names the option."""
    from helios.spec.quantities import QuantityError, parse_duration

    try:
        return parse_duration(text)
    except QuantityError as error:
        raise InputError(f"{option}: {error}") from error
