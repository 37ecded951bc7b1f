"""`spec.headroom` of services."""

from typing import Any

import pytest

from helios.errors import SpecError
from helios.spec import Service, from_json


def service(**spec: Any) -> Any:
    body = {"application": "m:f", **spec}
    return from_json({"apiVersion": "helios/v1", "kind": "Service", "metadata": {"name": "a"}, "spec": body})


def test_only_the_most_has_to_be_said() -> None:
    """Without `headroom` nothing is held; with it an hour's lead and 95% are what is taken."""
    found = service(headroom={"max": 3})
    assert isinstance(found, Service)
    assert found.spec.headroom is not None
    assert (found.spec.headroom.lead, found.spec.headroom.quantile) == (3600.0, 0.95)
    assert service().spec.headroom is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"headroom": {}}, "spec.headroom.max"),
        ({"headroom": {"max": 0}}, "spec.headroom.max"),
        ({"headroom": {"max": 1, "quantile": 1}}, "spec.headroom.quantile"),
        ({"headroom": {"max": 1, "lead": "2d"}}, "spec.headroom.lead"),
        ({"headroom": {"max": 1}, "qos": "standard"}, "spec.headroom"),
    ],
)
def test_what_cannot_be_held_is_refused(spec: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    with pytest.raises(SpecError) as caught:
        service(**spec)
    assert [problem.field for problem in caught.value.problems] == [field]
