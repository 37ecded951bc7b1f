"""People and programs that another issuer vouches for: OIDC JWTs, checked against the issuer's published keys."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import httpx
import jwt
import orjson
from pydantic import Field, ValidationError, model_validator

from helios.api.roles import EVERY_TENANT, UNSCOPED, Grant, Principal, Role
from helios.api.tokens import scope_errors
from helios.errors import Problem, SpecError, UnauthorizedError, UnavailableError
from helios.spec.base import Errors, Matching, Model, Name, located
from helios.spec.problems import problems_of
from helios.spec.source import read_sources

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: with HS256 whoever knows the public key could sign."""
LEEWAY_S = 60.0
KEYS_FRESH_S = 3600.0
"""Keys that were fetched longer ago are fetched anew."""
REFRESH_EVERY_S = 10.0
"""The shortest time between two fetches, or tokens with made-up key ids would have us hammer the issuer."""
FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 2**20
MAX_TOKEN_BYTES = 16 * 2**10


class Binding(Model):
    """A role for those whose token says something."""

    claim: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the claim; a dotted path reaches into objects (`realm_access.roles`)."""
    value: Annotated[str, Field(min_length=1, max_length=500)]
    """What the claim is, or, where it is a list, what is in it."""
    role: Role
    """What they may do."""
    tenants: list[Name | Annotated[str, Matching(r"^\*$", "*")]] = Field(default=[])
    """For viewer and researcher: the tenants that they reach, or `*`. The roles platform and admin reach all."""

    @model_validator(mode="after")
    def _scope_fits_the_role(self) -> Self:
        errors: Errors = []
        if self.role is Role.AGENT:
            errors.append((("role",), "", "agents have tokens of their own (`helios token create --role agent`)"))
        else:
            errors += scope_errors(self.role, self.tenants, None)
        if errors:
            raise located("Binding", errors)
        return self

    def grant(self) -> Grant:
        tenants = [EVERY_TENANT] if self.role in UNSCOPED else self.tenants
        return Grant(self.role, frozenset(tenants))


class OidcConfig(Model):
    """An issuer, and what its tokens are good for here."""

    issuer: Annotated[
        str,
        Matching(
            r"^(https://[^\s?#]{1,500}|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?(/[^\s?#]{0,400})?)$",
            "the issuer's https URL, as its tokens say it in `iss`",
        ),
    ]
    """URL as in the tokens' `iss`; `<issuer>/.well-known/openid-configuration` names its keys."""
    audience: Annotated[str, Field(min_length=1, max_length=500)]
    """What the tokens' `aud` must have."""
    subject_claim: Annotated[str, Field(min_length=1, max_length=200)] = "sub"
    """The claim that the audit log names people by."""
    bindings: list[Binding] = Field(min_length=1)
    """Roles by what a token says; all that fit are given."""


def load_oidc(path: Path) -> OidcConfig:
    """Read a YAML file. Raises `SpecError` with file, line and field of every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(f"cannot be read: {error}", file=str(path))]) from error
    sources, problems = read_sources(text, str(path))
    if not problems and len(sources) != 1:
        problems = [Problem(f"expected one document, got {len(sources)}", file=str(path), line=1, column=1)]
    if not problems:
        source = sources[0]
        problems = list(source.problems)
        try:
            config = OidcConfig.model_validate(source.data, by_alias=True, by_name=False)
        except ValidationError as error:
            problems += problems_of(error, OidcConfig, source.data, source=source)
    if problems:
        raise SpecError(problems)
    return config


class KeySet:
    """The issuer's keys, as it publishes them. Thread-safe; a fetch holds up only those who need its outcome."""

    def __init__(
        self, issuer: str, *, transport: httpx.BaseTransport | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._transport = transport
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure = ""

    def known(self, kid: str) -> Mapping[str, Any] | None:
        """The key, where it is here and fresh; never asks the issuer."""
        fresh = self._monotonic() - self._fetched_at < KEYS_FRESH_S
        return self._keys.get(kid) if fresh else None

    def find(self, kid: str) -> Mapping[str, Any]:
        """The key as a JWK, from the issuer where need be.

        Raises:
            UnauthorizedError: the issuer answers and has no such key.
            UnavailableError: the issuer does not answer, so that nobody can tell.
        """
        with self._lock:
            if (key := self.known(kid)) is not None:
                return key
            if self._monotonic() - self._tried_at >= REFRESH_EVERY_S:
                self._refresh()
            if (key := self.known(kid)) is not None:
                return key
            failure = self._failure
        if failure:
            raise UnavailableError(
                f"the keys of the issuer {self._issuer} cannot be fetched, so this token cannot be checked: {failure}",
                hint="try again; tokens of HELIOS itself work without the issuer",
            )
        raise UnauthorizedError(f"the issuer {self._issuer} has no key {kid[:100]!r}", hint="get a new token from it")

    def _refresh(self) -> None:
        self._tried_at = self._monotonic()
        try:
            self._keys = self._fetch()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._failure = f"{type(error).__name__}: {error}"[:300]
        else:
            self._failure = ""
            self._fetched_at = self._tried_at

    def _fetch(self) -> dict[str, Mapping[str, Any]]:
        with httpx.Client(transport=self._transport, timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client:
            discovery = _document(client, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if discovery.get("issuer") != self._issuer:
                raise ValueError(f"its discovery document is of the issuer {str(discovery.get('issuer'))[:200]!r}")
            keys = _document(client, str(discovery.get("jwks_uri", ""))).get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
            raise ValueError("its key set has no list of keys")
        return {str(key.get("kid", "")): key for key in keys if key.get("use", "sig") == "sig"}


class Oidc:
    """Tells who an issuer's JWT is of, and what they may do here."""

    def __init__(
        self,
        config: OidcConfig,
        *,
        transport: httpx.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._keys = KeySet(config.issuer, transport=transport, monotonic=monotonic)

    def needs_issuer(self, bearer: str) -> bool:
        """Whether `principal` would have to ask the issuer, which may take seconds."""
        return self._keys.known(_header(bearer)[0]) is None

    def principal(self, bearer: str) -> Principal:
        """Check a token's signature, times, issuer and audience, and give the roles that its claims earn.

        Raises:
            UnauthorizedError: it is not a token of this issuer for us, now.
            UnavailableError: the issuer's keys cannot be had, so that nobody can tell.
        """
        kid, algorithm = _header(bearer)
        published = self._keys.find(kid)
        try:
            claims = jwt.decode(
                bearer,
                # A key that is published for one algorithm is good for no other.
                jwt.PyJWK.from_dict(dict(published), published.get("alg", algorithm)),
                algorithms=[algorithm],
                audience=self.config.audience,
                issuer=self.config.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise UnauthorizedError(
                f"this token is refused: {error}", hint="get a new token from the issuer"
            ) from error
        subject = claims.get(self.config.subject_claim)
        if not isinstance(subject, str) or not subject or len(subject) > 200 or not subject.isprintable():
            raise UnauthorizedError(
                f"this token has no usable claim {self.config.subject_claim!r} to name its bearer by"
            )
        grants = tuple(one.grant() for one in self.config.bindings if one.value in _values(claims, one.claim))
        return Principal(subject, grants, credential=f"oidc:{subject}")


def _header(bearer: str) -> tuple[str, str]:
    """Key id and algorithm, as the token itself says them: nothing is proved yet."""
    if len(bearer) > MAX_TOKEN_BYTES:
        raise UnauthorizedError(f"a token may have {MAX_TOKEN_BYTES} characters at most")
    try:
        header = jwt.get_unverified_header(bearer)
    except jwt.PyJWTError as error:
        raise UnauthorizedError("this bearer token is neither one of HELIOS nor a JWT") from error
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise UnauthorizedError(f"tokens are signed with one of {', '.join(ALGORITHMS)}, not {str(algorithm)[:40]!r}")
    return str(header.get("kid", "")), algorithm


def _values(claims: Mapping[str, Any], claim: str) -> Iterable[str]:
    """What a claim says, as texts; nothing where the token has no such claim."""
    here: Any = claims
    if claim in claims:
        here = claims[claim]
    else:
        for part in claim.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
    return [item for item in (here if isinstance(here, list) else [here]) if isinstance(item, str)]


def _document(client: httpx.Client, url: str) -> Mapping[str, Any]:
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ValueError(f"keys are fetched over https only, not from {url[:200]!r}")
    with client.stream("GET", url, headers={"Accept": "application/json"}) as response:
        response.raise_for_status()
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"{url} is larger than {MAX_DOCUMENT_BYTES} bytes")
    document = orjson.loads(body)
    if not isinstance(document, Mapping):
        raise ValueError(f"{url} is not a JSON object")  # noqa: TRY004  # a bad document, not a bad call
    return document
