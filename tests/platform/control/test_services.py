"""Services: replicas that stay up, replaced in place."""

from typing import Any

from helios.control import request_delete, request_redeploy
from helios.ports import Phase


def test_service_is_ready_when_it_answers(fleet: Any) -> None:
    """Ready comes with the address, and only when the cell reports one."""
    fleet.service()
    fleet.settle(2)
    assert fleet.state("avatar", "Service") == "Deploying"
    fleet.running("avatar")
    status = fleet.status("avatar", "Service")
    assert (status["state"], status["url"], status["epoch"]) == ("Ready", "http://127.0.0.1:9", 1)


def test_redeploy_replaces_the_launch_in_place(fleet: Any) -> None:
    """The same spec again: a higher epoch on the same nodes, without going through the queue."""
    fleet.service(resources={"cpus": 2})
    fleet.running("avatar")
    request_redeploy(fleet.store, "avatar")
    assert fleet.running("avatar")[1] == 2
    status = fleet.status("avatar", "Service")
    assert (status["state"], status["placement"]["nodes"]) == ("Ready", ["local-0"])
    assert len(fleet.cell.live()) == 1


def test_changed_config_is_replaced_in_place_and_changed_resources_go_through_the_queue(fleet: Any) -> None:
    """Resources are never held twice, nor taken without the scheduler."""
    fleet.service(config={"a": 1})
    fleet.running("avatar")
    fleet.service(config={"a": 2})
    assert fleet.running("avatar")[1] == 2
    fleet.service(config={"a": 2}, resources={"cpus": 2})
    fleet.settle()
    assert fleet.running("avatar")[1] == 3
    assert "Reshape: the new spec" in " ".join(event.message for event in fleet.store.events(name="avatar"))


def test_lost_service_comes_back_at_once(fleet: Any) -> None:
    """The engine was restarted: the service is deployed again under the next epoch."""
    fleet.service()
    fleet.running("avatar")
    fleet.cell.lose_engine()
    assert fleet.running("avatar")[1] == 2
    assert fleet.state("avatar", "Service") == "Ready"


def test_failing_deployment_is_shown_and_tried_again_later(fleet: Any) -> None:
    """Failed is shown with the reason; the next try comes after a delay that grows."""
    fleet.service()
    fleet.settle(2)
    fleet.cell.end(fleet.cell.key("avatar"), Phase.FAILED, "Error", "no such model")
    fleet.settle(3)
    status = fleet.status("avatar", "Service")
    assert (status["state"], status["message"], status["epoch"]) == ("Failed", "no such model", 1)
    fleet.advance(11)
    assert fleet.running("avatar")[1] == 2
    assert fleet.state("avatar", "Service") == "Ready"


def test_service_that_cannot_work_waits_for_another_spec(fleet: Any) -> None:
    """InvalidConfig is not tried again and holds no resources; the next spec is deployed."""
    fleet.service(config={"a": "wrong"})
    fleet.settle(2)
    fleet.cell.end(fleet.cell.key("avatar"), Phase.FAILED, "InvalidConfig")
    fleet.settle(3)
    fleet.advance(1000)
    fleet.settle(3)
    assert (fleet.state("avatar", "Service"), fleet.cell.starts["avatar"]) == ("Failed", 1)
    assert "placement" not in fleet.status("avatar", "Service")
    fleet.service(config={"a": "right"})
    fleet.settle(2)
    fleet.running("avatar")
    assert fleet.state("avatar", "Service") == "Ready"


def test_delete_stops_the_service(fleet: Any) -> None:
    """The record goes when the cell has stopped it."""
    fleet.service()
    fleet.running("avatar")
    request_delete(fleet.store, "Service", "avatar")
    fleet.settle()
    assert fleet.store.find("Service", "avatar") is None
    assert not fleet.cell.live()


def test_no_replicas_is_a_service_that_is_off(fleet: Any) -> None:
    """`replicas: 0` stops it and keeps the record."""
    fleet.service()
    fleet.running("avatar")
    fleet.service(replicas=0)
    fleet.settle()
    assert not fleet.cell.live()
    assert fleet.status("avatar", "Service")["reason"] == "ScaledToZero"
