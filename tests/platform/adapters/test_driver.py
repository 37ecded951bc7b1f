"""What the driver decides without its engine: space, fences, sight."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helios.adapters.objects import LocalObjectStore
from helios.adapters.programs import marked
from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.ray_local.folder import JobFolder
from helios.adapters.ray_local.machine import device_type, observe
from helios.adapters.ray_local.records import Records, Start
from helios.durable import read_json, write_json
from helios.errors import UnavailableError
from helios.ports import Launch, Phase


def launch(uid: str = "a", *, epoch: int = 1, kind: str = "Job", **spec: object) -> Launch:
    return Launch(kind, uid, uid, epoch, {"entrypoint": "python -V", **spec}, workers=1, nodes=("lab-0",))


def test_full_disk_fails_before_a_start(tmp_path: Path) -> None:
    """Below the minimum of free space nothing is started, and the status says why; it stays so for a new driver."""
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=2**62)
    driver.start(launch())
    status = RayLocalDriver(cell="lab", folder=tmp_path).status("a", 1)
    assert (status.phase, status.reason) == (Phase.FAILED, "NoSpace")
    assert "GB left" in status.message


def test_minimum_of_free_space_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HELIOS_MIN_FREE_BYTES sets the minimum."""
    monkeypatch.setenv("HELIOS_MIN_FREE_BYTES", str(2**62))
    driver = RayLocalDriver(cell="lab", folder=tmp_path)
    driver.start(launch())
    assert driver.status("a", 1).reason == "NoSpace"


def test_without_an_engine_nothing_is_said_to_have_failed(tmp_path: Path) -> None:
    """A cell whose Ray is not there cannot start; the launch stays absent, so that it is started later."""
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=0)
    with pytest.raises(UnavailableError):
        driver.nodes()
    with pytest.raises(UnavailableError):
        driver.start(launch())
    assert driver.status("a", 1).phase is Phase.ABSENT
    assert driver.status("never", 7).phase is Phase.ABSENT
    driver.stop("a", 1, grace_s=30)
    assert driver.status("a", 1).phase is Phase.STOPPED


def test_job_that_ended_unnoted_is_not_run_again(tmp_path: Path) -> None:
    """Killed between Ray's taking a job and noting that: the exit that it left meanwhile counts, space or no space."""
    with Records(tmp_path / "launches").of("a") as entry:
        entry.save(Start.of(launch(), at=0.0))
    exit_file = tmp_path / "bucket/jobs/a/exit.json"
    write_json(exit_file, {"code": 0, "reason": "Completed", "epoch": 1, "outputs": {"checkpoint": "/c"}})
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=2**62)
    driver.start(launch())
    status = driver.status("a", 1)
    assert (status.phase, status.outputs) == (Phase.SUCCEEDED, {"checkpoint": "/c"})
    assert exit_file.exists()


def test_folder_is_made_ready_once_a_start(tmp_path: Path) -> None:
    """Made ready again for the same start it keeps what that start wrote; for the next one it is cleared."""
    folder = JobFolder(tmp_path)
    first, second = (Start.of(launch(epoch=epoch, config={"lr": epoch}), at=0.0) for epoch in (1, 2))
    folder.prepare(first)
    for name in ("exit.json", "pid.json", "result.json"):
        write_json(tmp_path / name, {"epoch": 1})
    folder.prepare(first)
    assert folder.exit(1) is not None
    assert folder.pid(1) is not None
    assert (tmp_path / "result.json").exists()
    folder.prepare(second)
    assert not [name for name in ("exit.json", "pid.json", "result.json") if (tmp_path / name).exists()]
    assert read_json(folder.config) == {"lr": 2}


def test_stop_of_a_job_that_ray_took_unnoted_leaves_no_process(tmp_path: Path) -> None:
    """What runs under the job's uid and epoch is ended before the job is said to be stopped."""
    with Records(tmp_path / "launches").of("a") as entry:
        entry.save(Start.of(launch(), at=0.0))
    marks = {"HELIOS_JOB_UID": "a", "HELIOS_EPOCH": "1"}
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleep, env={**os.environ, **marks}) as process:
        try:
            driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=0)
            driver.stop("a", 1, grace_s=30)
            assert driver.status("a", 1).phase is Phase.STOPPED
            assert marked(marks) == []
        finally:
            process.kill()


def test_stop_before_its_start_forbids_it_for_good(tmp_path: Path) -> None:
    """A start whose order was still on its way when it was stopped does nothing when it comes; a later epoch does."""
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=0)
    driver.stop("a", 1, grace_s=30)
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=0)
    driver.start(launch())  # Ray does not run: a start that goes ahead says so
    assert (driver.status("a", 1).phase, driver.status("a", 1).reason) == (Phase.STOPPED, "Stopped")
    assert driver.running() == []
    with pytest.raises(UnavailableError):
        driver.start(launch(epoch=2))


def test_invalid_spec_is_refused_for_good(tmp_path: Path) -> None:
    """A spec that this cell does not understand is an invalid configuration."""
    driver = RayLocalDriver(cell="lab", folder=tmp_path, min_free_bytes=0)
    driver.start(launch(colour="green"))
    status = driver.status("a", 1)
    assert (status.phase, status.reason) == (Phase.FAILED, "InvalidConfig")
    assert "colour" in status.message


def test_logs_of_a_job_that_never_ran_are_empty(tmp_path: Path) -> None:
    """There is nothing to read, and reading it is no error."""
    assert RayLocalDriver(cell="lab", folder=tmp_path).logs("a", 1, offset=5) == (b"", 5)


def test_keys_stay_in_the_bucket(tmp_path: Path) -> None:
    """A key cannot lead out of the bucket; the bucket knows its free space."""
    bucket = LocalObjectStore(tmp_path / "bucket")
    assert bucket.uri("runs/a") == str(tmp_path / "bucket/runs/a")
    assert (bucket.free_bytes() or 0) > 0
    with pytest.raises(ValueError, match="leads out"):
        bucket.uri("../../etc/passwd")


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "GeForce-RTX-4090"),
    ],
)
def test_devices_are_named_as_cells_name_them(product: str, name: str) -> None:
    """Product names of the driver become the short types of YAML."""
    assert device_type(product) == name


def test_this_machine_is_a_node() -> None:
    """The node has the machine's cores and memory."""
    node = observe(cell="lab", pool="machine", healthy=True)
    assert (node.name, node.pool, node.healthy) == ("lab-0", "machine", True)
    assert node.cpus >= 1
    assert node.memory > 2**28
