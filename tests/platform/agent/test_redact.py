"""Secret values never pass the redactor, however the stream is cut."""

from hypothesis import given
from hypothesis import strategies as st

from helios.agent.redact import MASK, Redactor, maskable

SECRETS = [b"hunter2-hunter2", b"abab", b"hunter2-x"]


@given(st.lists(st.sampled_from([*SECRETS, b"hunt", b"er2-", b"ab", b" ", b"x\n"])), st.integers(1, 7))
def test_no_cut_lets_a_secret_through(words: list[bytes], size: int) -> None:
    """For any text and any way to cut it, no secret is in the output."""
    text = b" ".join(words)
    redactor = Redactor(SECRETS)
    pieces = [redactor.feed(text[at : at + size]) for at in range(0, len(text), size)]
    written = b"".join([*pieces, redactor.flush()])
    assert not any(secret in written for secret in SECRETS)


def test_other_text_passes_unchanged() -> None:
    """Text without secrets comes out as it went in, all of it after flush."""
    redactor = Redactor(SECRETS)
    assert redactor.feed(b"loss 0.5 hunt") + redactor.feed(b"ing\n") + redactor.flush() == b"loss 0.5 hunting\n"


def test_secret_is_masked() -> None:
    """A whole secret becomes the mask; values too short to be secrets are left alone."""
    redactor = Redactor([b"hunter2", b"1"])
    assert redactor.feed(b"1 key=hunter2\n") == b"1 key=" + MASK + b"\n"


def test_parts_of_a_secret_are_masked_too() -> None:
    """A line of a key, or a field of a JSON secret, is as secret as the whole; what is short is left alone."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkq\n-----END KEY-----"
    database = '{"user": "al", "password": "correct-horse", "more": [{"token": "battery-staple"}]}'
    redactor = Redactor(maskable([key, database]))
    shown = redactor.feed(b"line MIIEvQIBADANBg of kq; correct-horse and battery-staple for al\n") + redactor.flush()
    assert shown == b"line [redacted] of kq; [redacted] and [redacted] for al\n"
