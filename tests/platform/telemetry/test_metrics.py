"""What the registry shows after each of the functions that fill it."""

import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from helios.telemetry import metrics


@pytest.fixture(autouse=True)
def _follower_afterwards() -> Iterator[None]:
    """What a test says as the leader is gone after it."""
    yield
    metrics.set_leader(leads=False)


def value(name: str, **labels: str) -> float:
    """The present value of a series; 0 where there is none."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def series(name: str) -> list[dict[str, str]]:
    return [sample.labels for metric in metrics.REGISTRY.collect() for sample in metric.samples if sample.name == name]


def test_render_is_what_prometheus_reads() -> None:
    """The page parses, and says which version runs."""
    body, content_type = metrics.render()
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert content_type.startswith("text/plain; version=0.0.4")
    (build,) = families["helios_build_info"].samples
    assert re.fullmatch(r"\d+\.\d+.*", build.labels["version"])
    assert build.value == 1
    assert "process_resident_memory_bytes" in families


def test_names_follow_the_conventions() -> None:
    """Ours begin with `helios_`, counters end with `_total`, times are in seconds, and all have a help text."""
    for family in metrics.REGISTRY.collect():
        assert family.documentation
        if family.name.startswith("process_"):
            continue
        assert re.fullmatch(r"helios_[a-z_]+", family.name)
        assert not re.search(r"_(ms|minutes|milliseconds)\b", family.name)
        assert all(not sample.name.endswith("_created") for sample in family.samples)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_request_is_counted_under_its_route() -> None:
    """Latency by route template, method and status; what matched no route is one series."""
    labels = {"route": "/v1/jobs/{name}", "method": "GET", "status": "200"}
    other = {"route": "Other", "method": "Other", "status": "404"}
    name = "helios_api_request_duration_seconds_count"
    before, unrouted = value(name, **labels), value(name, **other)
    metrics.observe_request(route="/v1/jobs/{name}", method="GET", status=200, seconds=0.02)
    metrics.observe_request(route="", method="", status=404, seconds=0.001)
    metrics.observe_request(route="", method="", status=404, seconds=0.001)
    assert value(name, **labels) == before + 1
    assert value(name, **other) == unrouted + 2


def test_labels_that_a_client_could_invent_are_bounded() -> None:
    """A flood of routes or reasons ends in `Other`, and so does a reason that is no word of the field."""
    known = metrics._Known(3)
    assert [known(str(n)) for n in (1, 2, 3, 4, 2, 5)] == ["1", "2", "3", "Other", "2", "Other"]
    before = value("helios_restarts_total", reason="Other")
    metrics.count_restart("free text of a program")
    metrics.count_restart("x" * 100)
    assert value("helios_restarts_total", reason="Other") == before + 2


def test_queue_shows_what_waits_and_forgets_what_does_not() -> None:
    """Depth and age by class and tenant; a class that is empty has no series."""
    metrics.set_queue({("standard", "blue"): (3, 60.0), ("preemptible", "red"): (1, 5.0)})
    assert value("helios_queue_depth", qos="standard", tenant="blue") == 3
    assert value("helios_queue_oldest_seconds", qos="standard", tenant="blue") == 60
    metrics.set_queue({("standard", "blue"): (2, 61.0)})
    assert series("helios_queue_depth") == [{"qos": "standard", "tenant": "blue"}]
    assert series("helios_queue_oldest_seconds") == [{"qos": "standard", "tenant": "blue"}]


def test_wait_of_each_admission_is_in_the_histogram() -> None:
    """By class and tenant."""
    before = value("helios_queue_wait_seconds_sum", qos="guaranteed", tenant="blue")
    metrics.observe_wait(qos="guaranteed", tenant="blue", seconds=42)
    assert value("helios_queue_wait_seconds_sum", qos="guaranteed", tenant="blue") == before + 42


def test_scheduling_pass_counts_its_decisions() -> None:
    """How many gangs, and how long the pass took."""
    decisions, passes = (
        value("helios_scheduler_decisions_total"),
        value("helios_scheduler_decision_duration_seconds_count"),
    )
    metrics.observe_decisions(40, 0.02)
    assert value("helios_scheduler_decisions_total") == decisions + 40
    assert value("helios_scheduler_decision_duration_seconds_count") == passes + 1


def test_cycle_and_write_have_their_histograms() -> None:
    """One observation each, of time and of size."""
    names = [
        "helios_controller_cycle_duration_seconds",
        "helios_store_write_duration_seconds",
        "helios_store_write_batch_size",
    ]
    counts = [value(f"{name}_count") for name in names]
    batches = value("helios_store_write_batch_size_sum")
    metrics.observe_cycle(0.5)
    metrics.observe_write(0.004, 12)
    assert [value(f"{name}_count") for name in names] == [count + 1 for count in counts]
    assert value("helios_store_write_batch_size_sum") == batches + 12


def test_watch_lag_is_from_a_write_to_its_delivery() -> None:
    """A delivery stands for all writes up to its revision, each counted once; what nobody watches is forgotten."""
    clock = iter([10.0, 11.0, 100.0, 101.0, 103.0, 110.0, 111.0])
    pending = metrics._Pending(2, monotonic=lambda: next(clock))
    pending.wrote(5)
    assert pending.delivered(6) == [], "nobody was watching when it was written"
    for revision in (7, 9, 12):
        pending.wrote(revision)
    assert pending.delivered(11) == [110.0 - 101.0]
    assert pending.delivered(11) == []


def test_delivered_writes_are_in_the_histogram() -> None:
    """One observation a write, and none for a transaction that raised no revision."""
    metrics.observe_delivery(10**9)
    before = value("helios_watch_lag_seconds_count")
    metrics.observe_write(0.01, 1, revision=10**9 + 1)
    metrics.observe_write(0.01, 1, revision=10**9 + 2)
    metrics.observe_write(0.01, 1)
    metrics.observe_delivery(10**9 + 2)
    assert value("helios_watch_lag_seconds_count") == before + 2


def test_watchers_come_and_go() -> None:
    """The gauge is what is open now."""
    before = value("helios_watchers")
    metrics.add_watchers(2)
    metrics.add_watchers(-1)
    assert value("helios_watchers") == before + 1
    metrics.add_watchers(-1)


def test_replica_that_no_longer_leads_shows_nothing_that_only_the_leader_knows() -> None:
    """Or a sum over replicas would count the same GPU twice."""
    metrics.set_leader(leads=True)
    metrics.set_records({("Job", "Running"): 5})
    metrics.set_queue({("standard", "blue"): (3, 60.0)})
    metrics.set_gpus({("east", "H100", "free"): 8})
    metrics.set_agent_lag("east", 1.5)
    metrics.add_gpu_seconds(bucket="productive", tenant="blue", cell="east", seconds=10)
    assert value("helios_leader") == 1
    assert value("helios_agent_lag_seconds", cell="east") == 1.5
    assert value("helios_gpu_seconds_total", bucket="productive", tenant="blue", cell="east") == 10
    metrics.set_leader(leads=False)
    assert value("helios_leader") == 0
    for name in ("records", "queue_depth", "queue_oldest_seconds", "gpus", "agent_lag_seconds", "gpu_seconds_total"):
        assert series(f"helios_{name}") == []


def test_cell_that_was_taken_away_has_no_lag() -> None:
    """Nor does an alert wait for its agent; forgetting twice is once."""
    metrics.set_agent_lag("east", 1.0)
    metrics.set_agent_lag("west", 2.0)
    metrics.forget_cell("east")
    metrics.forget_cell("east")
    assert series("helios_agent_lag_seconds") == [{"cell": "west"}]
