"""What a connection may send before anybody knows who is there."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 2**17
"""Of a request's line and headers: twice the longest bearer token that is looked at, and room for the rest."""


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, which of itself keeps headers without end, and copies a long one anew with every packet."""

    _unheard = 0
    """Bytes that came since the parser last told of a request's head, a part of its body or its end."""

    def data_received(self, data: bytes) -> None:
        """Parse, and hang up on a sender of headers (or trailers) that are too long."""
        self._unheard += len(data)
        super().data_received(data)
        if self._unheard > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"A request may have {MAX_HEAD_BYTES} bytes of headers.")

    def on_headers_complete(self) -> None:
        self._unheard = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard = 0
        super().on_message_complete()
