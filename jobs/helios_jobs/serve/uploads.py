"""Reading a multipart form as it streams in: files go to disk, fields stay small, limits hit while it is read."""

import errno
import hashlib
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from helios.errors import NoSpaceError, nearest
from helios_jobs.serve.errors import LimitError, RequestError

FILES = ("video_reference", "audio_reference")
FIELDS = ("text", "voice", "prompt", "seed", "consent_id", "model")
_MAX_FIELD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class UploadedFile:
    path: Path
    sha256: str
    bytes: int


@dataclass(slots=True)
class Form:
    """A parsed form. The files live as long as the `received_form` block it came from."""

    folder: Path
    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, UploadedFile] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names the content: equal requests have equal digests, in whatever order their parts came."""
        parts = [*sorted(self.fields.items()), *sorted((name, file.sha256) for name, file in self.files.items())]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@asynccontextmanager
async def received_form(request: Request, incoming: Path) -> AsyncIterator[Form]:
    """Receive the request's form into a folder under `incoming`, which is removed at the end of the block.

    The request as a whole is bounded by the application's body limit; this bounds fields and names.

    Raises:
        RequestError: not multipart/form-data, malformed, cut short, or with unknown or repeated parts.
        LimitError: a text field is too long.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise RequestError("send the request as multipart/form-data", reason="not_multipart")
    folder = incoming / f"upload-{secrets.token_hex(8)}"
    folder.mkdir()
    reader = _Reader(Form(folder))
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
        if not reader.ended:
            raise RequestError("the form is cut short", reason="malformed_form")
        yield reader.form
    except FormParserError as error:
        raise RequestError("the form is malformed", reason="malformed_form") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError("no space left to receive the upload") from error
        raise
    finally:
        reader.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Reader:
    """The multipart parser's callbacks."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.ended = False
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begin,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _part_begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.form.fields or self._name in self.form.files:
            raise RequestError(f"{self._name} is given twice", reason="repeated_field", param=self._name)
        if self._name in FILES:
            self._file = (self.form.folder / self._name).open("wb")
            self._hash = hashlib.sha256()
        elif self._name not in FIELDS:
            near = nearest(self._name, (*FILES, *FIELDS))
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join((*FILES, *FIELDS))}"
            shown = self._name[:64]
            raise RequestError(f"unknown field {shown!r}", reason="unknown_field", param=shown, hint=hint)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            self._hash.update(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _MAX_FIELD_BYTES:
            raise LimitError(f"{self._name}: too long", reason="field_too_long", param=self._name)

    def _part_end(self) -> None:
        if self._file is not None:
            size = self._file.tell()
            self.close()
            path = self.form.folder / self._name
            self.form.files[self._name] = UploadedFile(path, self._hash.hexdigest(), size)
            return
        try:
            self.form.fields[self._name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            raise RequestError(f"{self._name}: not UTF-8 text", reason="not_text", param=self._name) from None
        self._text.clear()

    def _end(self) -> None:
        self.ended = True
