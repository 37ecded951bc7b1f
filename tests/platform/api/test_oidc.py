"""OIDC: a JWT is good when its issuer's published key says so, and never because nobody could be asked."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi.testclient import TestClient

from helios.api.app import create_app
from helios.api.oidc import KEYS_FRESH_S, REFRESH_EVERY_S, Oidc, OidcConfig, load_oidc
from helios.errors import SpecError, UnauthorizedError, UnavailableError

ISSUER = "https://issuer.example"
CONFIG: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": "helios",
    "subjectClaim": "email",
    "bindings": [
        {"claim": "groups", "value": "science", "role": "researcher", "tenants": ["default"]},
        {"claim": "realm_access.roles", "value": "ops", "role": "platform"},
    ],
}
KEYS: dict[str, Any] = {"one": rsa.generate_private_key(65537, 2048), "two": ec.generate_private_key(ec.SECP256R1())}


class Issuer:
    """Publishes keys over HTTP, counts who asks, and can fall silent."""

    def __init__(self) -> None:
        self.published = ["one"]
        self.alg: dict[str, str] = {}
        self.asked = 0
        self.silent = False
        self.now = 0.0
        self.claimed = ISSUER

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.silent:
            raise httpx.ConnectError("connection refused")
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={"issuer": self.claimed, "jwks_uri": f"{ISSUER}/keys"})
        self.asked += 1
        return httpx.Response(200, json={"keys": [self.jwk(kid) for kid in self.published]})

    def jwk(self, kid: str) -> dict[str, Any]:
        key = KEYS[kid].public_key()
        family: Any = jwt.algorithms.RSAAlgorithm if kid == "one" else jwt.algorithms.ECAlgorithm
        alg = {"alg": self.alg[kid]} if kid in self.alg else {}
        return {**family.to_jwk(key, as_dict=True), "kid": kid, "use": "sig", **alg}

    def oidc(self, **changes: Any) -> Oidc:
        config = OidcConfig.model_validate({**CONFIG, **changes}, by_alias=True)
        return Oidc(config, transport=httpx.MockTransport(self.answer), monotonic=lambda: self.now)


def signed(kid: str = "one", algorithm: str = "RS256", key: Any = None, **changes: Any) -> str:
    now = time.time()
    claims = {"iss": ISSUER, "aud": "helios", "iat": now, "exp": now + 600, "email": "a@x.org", "groups": ["science"]}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, key or KEYS[kid], algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_claims_earn_roles(issuer: Issuer) -> None:
    """Groups in a list and roles deep in an object give their grants; the subject is the claim that was configured."""
    principal = issuer.oidc().principal(signed(realm_access={"roles": ["ops"]}))
    assert principal.subject == "a@x.org"
    assert {(grant.role.value, *sorted(grant.tenants)) for grant in principal.grants} == {
        ("researcher", "default"),
        ("platform", "*"),
    }


def test_token_without_a_binding_reaches_nothing(house: Any, issuer: Issuer) -> None:
    """A colleague whom no binding names is known, and may do nothing."""
    client = TestClient(create_app(house.plane, links={}, oidc=issuer.oidc()))
    headers = {"Authorization": f"Bearer {signed(groups=['cooks'])}"}
    assert client.get("/v1/whoami", headers=headers).json() == {"subject": "a@x.org", "cell": "", "grants": []}
    assert client.get("/v1/jobs", headers=headers).status_code == 403


def test_good_token_opens_the_api(house: Any, issuer: Issuer) -> None:
    """A researcher by binding lists jobs and may not list tokens."""
    client = TestClient(create_app(house.plane, links={}, oidc=issuer.oidc()))
    headers = {"Authorization": f"Bearer {signed()}"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    assert client.get("/v1/tokens", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "make",
    [
        lambda: signed(aud="other"),
        lambda: signed(iss="https://other.example"),
        lambda: signed(exp=time.time() - 61),
        lambda: signed(iat=time.time() + 3600),
        lambda: signed(nbf=time.time() + 3600),
        lambda: signed(exp=None),
        lambda: signed(aud=None),
        lambda: signed(email=None),
        lambda: signed(key=rsa.generate_private_key(65537, 2048)),
        lambda: jwt.encode({"sub": "a"}, "x" * 32, algorithm="HS256", headers={"kid": "one"}),
        lambda: jwt.encode({"sub": "a"}, "", algorithm="none", headers={"kid": "one"}),
        lambda: signed()[:-4] + "AAAA",
        lambda: "a.b.c",
        lambda: "x" * 20_000,
    ],
)
def test_bad_tokens_are_refused(issuer: Issuer, make: Callable[[], str]) -> None:
    """Wrong audience, issuer, time, signature, algorithm, or no token at all: refused each."""
    with pytest.raises(UnauthorizedError):
        issuer.oidc().principal(make())


def test_clocks_may_differ_by_a_minute(issuer: Issuer) -> None:
    """A token that ended half a minute ago is taken: clocks differ."""
    assert issuer.oidc().principal(signed(exp=time.time() - 30)).subject == "a@x.org"


def test_key_that_is_for_one_algorithm_is_good_for_no_other(issuer: Issuer) -> None:
    """A key published for RS256 does not take PS256; one published for none in particular takes either."""
    assert issuer.oidc().principal(signed(algorithm="PS256")).subject == "a@x.org"
    issuer.alg = {"one": "RS256"}
    with pytest.raises(UnauthorizedError):
        issuer.oidc().principal(signed(algorithm="PS256"))


def test_new_key_is_fetched_and_the_issuer_is_not_hammered(issuer: Issuer) -> None:
    """An unknown key id has the keys fetched anew, at most once in a while, whatever ids tokens make up."""
    oidc = issuer.oidc()
    oidc.principal(signed())
    issuer.now += REFRESH_EVERY_S
    issuer.published = ["one", "two"]
    assert oidc.principal(signed("two", "ES256")).subject == "a@x.org"
    assert issuer.asked == 2
    for _ in range(5):
        with pytest.raises(UnauthorizedError, match="no key"):
            oidc.principal(signed("one", key=KEYS["one"]).replace(signed().split(".")[0], _header("made-up")))
    assert issuer.asked == 2


def test_unreachable_issuer_is_said_and_never_lets_in(house: Any, issuer: Issuer) -> None:
    """503 with the reason while nobody can tell; tokens of HELIOS go on working."""
    issuer.silent = True
    client = TestClient(create_app(house.plane, token="static-token-of-the-house", links={}, oidc=issuer.oidc()))
    answer = client.get("/v1/jobs", headers={"Authorization": f"Bearer {signed()}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "Unavailable")
    assert "connection refused" in answer.json()["detail"]
    own = client.get("/v1/jobs", headers={"Authorization": "Bearer static-token-of-the-house"})
    assert own.status_code == 200


def test_keys_grow_old(issuer: Issuer) -> None:
    """After an hour the keys are fetched again: one that the issuer withdrew opens nothing, nor does silence."""
    oidc = issuer.oidc()
    oidc.principal(signed())
    issuer.now += KEYS_FRESH_S
    issuer.silent = True
    with pytest.raises(UnavailableError):
        oidc.principal(signed())
    issuer.now += REFRESH_EVERY_S
    issuer.silent, issuer.published = False, ["two"]
    with pytest.raises(UnauthorizedError):
        oidc.principal(signed())


def test_discovery_document_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    """Keys of another issuer are not fetched in this one's name."""
    issuer.claimed = "https://evil.example"
    with pytest.raises(UnavailableError, match="evil"):
        issuer.oidc().principal(signed())


def test_config_errors_have_line_and_field(tmp_path: Path) -> None:
    """A wrong file is refused with file, line, field and the nearest name; a right one loads."""
    path = tmp_path / "oidc.yaml"
    path.write_text(
        "issuer: https://issuer.example\naudience: helios\nsubjctClaim: email\nbindings:\n"
        "- {claim: groups, value: a, role: vewer, tenants: [default]}\n- {claim: groups, value: b, role: viewer}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_oidc(path)
    found = {problem.field: problem for problem in caught.value.problems}
    assert (found["subjctClaim"].line, found["subjctClaim"].nearest) == (3, "subjectClaim")
    assert (found["bindings[0].role"].line, found["bindings[0].role"].nearest) == (5, "viewer")
    assert found["bindings[0].role"].file == str(path)
    path.write_text(
        "issuer: https://issuer.example\naudience: helios\nbindings:\n"
        "- {claim: groups, value: a, role: viewer, tenants: [default]}\n"
    )
    assert load_oidc(path).subject_claim == "sub"
    with pytest.raises(SpecError, match="cannot be read"):
        load_oidc(tmp_path / "missing.yaml")


def _header(kid: str) -> str:
    return jwt.encode({}, KEYS["one"], algorithm="RS256", headers={"kid": kid}).split(".")[0]
