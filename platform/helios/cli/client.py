"""The CLI's way to the control plane: one method a route, errors as our own tree."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from helios.cli.endpoint import NOT_RUNNING, Endpoint, find_home
from helios.cli.output import err
from helios.cli.sse import StreamEvent, parse
from helios.cli.transport import PATIENCE_S, Transport
from helios.errors import NotFoundError, UnavailableError, nearest

if TYPE_CHECKING:
    import httpx  # 0.15 s to import: only a command that calls the API pays for it

__all__ = [
    "KINDS",
    "NOT_RUNNING",
    "Applied",
    "Client",
    "Endpoint",
    "LogPart",
    "Object",
    "connect",
    "find_home",
    "kind_of",
]

KINDS: Mapping[str, str] = {
    "Cell": "cells",
    "Tenant": "tenants",
    "Job": "jobs",
    "Curriculum": "curricula",
    "Service": "services",
}
"""Plural (as in URLs) by kind; written out so that `helios --help` need not import the spec."""

TIMEOUT_S = 30.0
REPLICA_TIMEOUT_S = 10.0
"""How long a replica may take to answer where there is another one to ask."""
PAGE = 1000
"""Objects asked for at a time; the most that the API gives."""
Object = dict[str, Any]


def kind_of(word: str) -> str:
    """Return the kind that a user means by `job`, `jobs`, `Jobs`, ...; raises `NotFoundError`."""
    for kind, plural in KINDS.items():
        if word.casefold() in {kind.casefold(), plural, f"{kind.casefold()}s"}:
            return kind
    near = nearest(word, [*KINDS.values(), *KINDS])
    raise NotFoundError("kind", word, known=[near], hint=f"kinds are: {', '.join(KINDS.values())}")


@dataclass(frozen=True, slots=True)
class Applied:
    """An object as stored, and what storing it did: `created`, `configured` or `unchanged`."""

    object: Object
    result: str


@dataclass(frozen=True, slots=True)
class LogPart:
    """Log bytes and where to go on; `ended` says that nothing will follow."""

    data: bytes
    epoch: int
    offset: int
    ended: bool


class Client:
    """One connection to the API. Every method raises from the tree in `helios.errors` and nothing else.

    Calls go to every replica in turn, for `patience_s`, where none answers; `notice` is told when that begins.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = 0.0,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.endpoint = endpoint
        self._transport = Transport(endpoint, timeout_s=timeout_s, patience_s=patience_s, notice=notice)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        """The replica that answered last."""
        return self._transport.url

    # Objects ----------------------------------------------------------------------------------------------------------

    def apply(self, document: Mapping[str, Any]) -> Applied:
        """Create or change an object; a call that is tried again carries the same key, so it is done once."""
        path = _path(document["kind"], document["metadata"]["name"])
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        response = self._transport.request("PUT", path, repeatable=True, json=document, headers=headers)
        return Applied(object=self._decoded(response), result=response.headers.get("Helios-Result", "applied"))

    def preview(self, document: Mapping[str, Any]) -> Object:
        """What `apply` would do: `result`, `diff`, `decision`, `cells`. Nothing is written."""
        path = _path(document["kind"], document["metadata"]["name"])
        return self._json("PUT", path, repeatable=True, json=document, params={"dryRun": "true"})

    def get(self, kind: str, name: str) -> Object:
        return self._json("GET", _path(kind, name))

    def list(self, kind: str, *, selector: str = "", tenant: str = "", state: str = "") -> Iterator[Object]:
        """All objects of a kind, page by page."""
        for page in self.pages(kind, selector=selector, tenant=tenant, state=state):
            yield from page["items"]

    def pages(self, kind: str, *, selector: str = "", tenant: str = "", state: str = "") -> Iterator[Object]:
        """Pages of objects, each with `items` and the `revision` that it was read at."""
        wanted = {"labelSelector": selector, "tenant": tenant, "state": state}
        params: dict[str, Any] = {name: value for name, value in wanted.items() if value}
        params["limit"] = PAGE
        while True:
            page = self._json("GET", f"/v1/{KINDS[kind]}", params=params)
            yield page
            if not page.get("next"):
                return
            params["after"] = page["next"]

    def watch(self, kind: str, *, after: int, selector: str = "", name: str = "") -> Iterator[StreamEvent]:
        """Changes of objects after a revision, for as long as the stream lasts.

        Raises:
            CompactedError: what changed after that revision is forgotten; list again.
            UnavailableError: the stream broke.
        """
        wanted = {"after": after, "labelSelector": selector, "name": name}
        params = {key: value for key, value in wanted.items() if value != ""}
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._transport.stream(f"/v1/{KINDS[kind]}/watch", params=params, headers=headers) as response:
            yield from parse(response.iter_bytes())

    def delete(self, kind: str, name: str) -> None:
        self._transport.request("DELETE", _path(kind, name), repeatable=True)

    def explain(self, kind: str, name: str) -> Object:
        return self._json("GET", _path(kind, name, "explain"))

    # What people ask of them ------------------------------------------------------------------------------------------

    def cancel(self, kind: str, name: str) -> Object:
        return self._json("POST", _path(kind, name, "cancel"), repeatable=True)

    def action(self, kind: str, name: str, verb: str) -> Object:
        """POST an action that is not the same when it is done twice: `preempt`, `redeploy`."""
        return self._json("POST", _path(kind, name, verb))

    def rerun(self, kind: str, name: str, *, everything: bool) -> Object:
        """Try ended work again; a curriculum from what failed, or with everything as a new run."""
        params = {"everything": "true"} if everything and kind == "Curriculum" else {}
        return self._json("POST", _path(kind, name, "rerun"), params=params)

    def cell_action(self, cell: str, verb: str, *, node: str = "", reason: str = "") -> Object:
        """`cordon`, `drain` or `uncordon` a node, or the whole cell."""
        body = {"node": node, "reason": reason}
        return self._json("POST", _path("Cell", cell, verb), repeatable=True, json=body)

    # The fleet --------------------------------------------------------------------------------------------------------

    def events(self, *, kind: str = "", name: str = "", after: int = 0, wait_s: float = 0.0) -> Object:
        params = {"kind": kind, "name": name, "after": after, "wait": wait_s}
        return self._json("GET", "/v1/events", params=params, wait_s=wait_s)

    def status(self) -> Object:
        return self._json("GET", "/v1/status")

    def queue(self) -> Object:
        return self._json("GET", "/v1/queue")

    def snapshot(self, *, cycle: str = "now") -> Object:
        """The scheduler's snapshot and what it decides on that, of `now` or of the `last` cycle carried out."""
        return self._json("GET", "/v1/snapshot", params={"cycle": cycle})

    def usage(self, *, by: str, since: float, until: float, resource: str) -> Object:
        """Resource-seconds by bucket for each tenant, cell or job; times are seconds since the epoch."""
        params = {"by": by, "since": since, "until": until, "resource": resource}
        return self._json("GET", "/v1/usage", params=params)

    def audit(self, **wanted: str | int) -> Object:
        """Entries of the audit log; `actor`, `kind`, `name` and `after` narrow them."""
        return self._json("GET", "/v1/audit", params=wanted)

    def whoami(self) -> Object:
        return self._json("GET", "/v1/whoami")

    def logs(self, job: str, *, epoch: int, offset: int, wait_s: float) -> LogPart:
        """Log bytes of one start of a job; epoch 0 means its first."""
        params = {"epoch": epoch, "offset": offset, "wait": wait_s}
        response = self._transport.request(
            "GET", _path("Job", job, "logs"), repeatable=True, params=params, wait_s=wait_s
        )
        return LogPart(
            data=response.content,
            epoch=int(response.headers["Helios-Log-Epoch"]),
            offset=int(response.headers["Helios-Log-Offset"]),
            ended=response.headers["Helios-Log-Ended"] == "true",
        )

    # Tokens -----------------------------------------------------------------------------------------------------------

    def create_token(self, wanted: Mapping[str, Any]) -> Object:
        """Make a token; the answer has it in `token`, this once."""
        return self._json("POST", "/v1/tokens", json=wanted)

    def tokens(self) -> Object:
        return self._json("GET", "/v1/tokens")

    def revoke_token(self, token_id: str) -> None:
        self._transport.request("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", repeatable=True)

    def _json(self, method: str, path: str, *, repeatable: bool | None = None, **options: Any) -> Object:
        again = method == "GET" if repeatable is None else repeatable
        return self._decoded(self._transport.request(method, path, repeatable=again, **options))

    def _decoded(self, response: "httpx.Response") -> Object:
        try:
            body = response.json()
        except ValueError as error:
            raise UnavailableError(f"what answers at {self._transport.url} is not HELIOS") from error
        if not isinstance(body, dict):
            raise UnavailableError(f"what answers at {self._transport.url} is not HELIOS")
        return body


def connect(*, patience_s: float = PATIENCE_S) -> Client:
    """Find the control plane and return a client of it; raises `UnavailableError` where there is none."""

    def notice(said: str) -> None:
        err().print(said, style="yellow", soft_wrap=True)

    endpoint = Endpoint.find()
    timeout_s = REPLICA_TIMEOUT_S if endpoint.others else TIMEOUT_S
    return Client(endpoint, timeout_s=timeout_s, patience_s=patience_s, notice=notice)


def _path(kind: str, name: str, *rest: str) -> str:
    return "/".join((f"/v1/{KINDS[kind]}", quote(name, safe=""), *rest))
