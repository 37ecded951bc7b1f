"""The log of a simulated job, made when it is asked for: every line of steps has the same width."""

from helios.adapters.simulated.course import Start

MAX_BYTES = 2**20


def read_log(start: Start, now: float, *, offset: int) -> tuple[bytes, int]:
    """Bytes from `offset` that are written by now, at most 1 MiB, and where to go on."""
    head = f"simulated: {start.name} epoch {start.epoch}, {start.workers} workers\n".encode()
    width = len(_line(0, start.steps))
    done = start.step_at(now) - start.first_step if now >= start.running_at else 0
    tail = f"ended: {start.reason} {start.message}\n".encode() if now >= start.over_at else b""
    end = len(head) + done * width + len(tail)
    until = min(end, offset + MAX_BYTES)
    if offset >= until:
        return b"", offset
    first = max(0, offset - len(head)) // width
    last = min(done, max(0, until - len(head)) // width + 1)
    lines = b"".join(_line(start.first_step + index + 1, start.steps) for index in range(first, last))
    at = 0 if offset < len(head) else len(head) + first * width
    text = (head if offset < len(head) else b"") + lines + (tail if last >= done else b"")
    return text[offset - at : until - at], until


def _line(step: int, steps: int) -> bytes:
    return f"step {step:>10} of {steps:>10}\n".encode()
