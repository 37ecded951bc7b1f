"""What the library says of each GPU is read, what it cannot say is left out, and nothing of it is an exception."""

from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from helios.agent.nvml import NvmlGpus, Signal


@pytest.fixture
def gpus(nvml: Any) -> NvmlGpus:
    return NvmlGpus(nvml)


def test_inventory(gpus: NvmlGpus) -> None:
    """Index, uuid, name and memory of each GPU, and the driver's version."""
    reading = gpus.read()
    assert reading.driver == "575.57.08"
    assert [gpu.index for gpu in reading.gpus] == list(range(8))
    first = reading.gpus[0]
    assert (first.uuid, first.name, first.memory) == ("GPU-0", "NVIDIA H100 80GB HBM3", 80 << 30)


def test_signals(gpus: NvmlGpus, nvml: Any) -> None:
    """Every measure comes from its own question."""
    one = nvml.gpus[3]
    one.volatile, one.aggregate, one.temperature, one.replays = 2, 9, 71, 5
    one.remapped = (1, 2, 1, 0)
    one.throttle = pynvml.nvmlClocksThrottleReasonHwSlowdown | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    assert gpus.read().gpus[3].signals == {
        Signal.LOST: 0,
        Signal.ECC_VOLATILE: 2,
        Signal.ECC_AGGREGATE: 9,
        Signal.TEMPERATURE: 71,
        Signal.PCIE_REPLAY: 5,
        Signal.ROW_REMAP_PENDING: 1,
        Signal.ROW_REMAP_FAILED: 0,
        Signal.THROTTLE_THERMAL: 0,
        Signal.THROTTLE_HARDWARE: 1,
        Signal.THROTTLE_POWER_BRAKE: 1,
    }


@pytest.mark.parametrize(
    "reason", [pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, pynvml.nvmlClocksThrottleReasonSwThermalSlowdown]
)
def test_both_ways_to_be_too_hot(gpus: NvmlGpus, nvml: Any, reason: int) -> None:
    """Whether hardware or driver slows it for its heat, it is too hot."""
    nvml.gpus[0].throttle = reason
    assert gpus.read().gpus[0].signals[Signal.THROTTLE_THERMAL] == 1


def test_what_a_model_does_not_have_is_left_out(gpus: NvmlGpus, nvml: Any) -> None:
    """A GPU without ECC, remapping or events is read for the rest."""
    nvml.gpus[0].unsupported = {
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetPcieReplayCounter",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceRegisterEvents",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    }
    nvml.events.append((nvml.gpus[0], 79))
    first = gpus.read().gpus[0]
    assert first.signals == {Signal.LOST: 0, Signal.TEMPERATURE: 40}
    assert (first.memory, first.xids) == (0, ())


def test_events_are_read_once(gpus: NvmlGpus, nvml: Any) -> None:
    """Each event is told once, of the GPU that had it, also where several came."""
    gpus.read()
    nvml.events.extend([(nvml.gpus[2], 63), (nvml.gpus[5], 79), (nvml.gpus[2], 94)])
    reading = gpus.read()
    assert {gpu.uuid: gpu.xids for gpu in reading.gpus if gpu.xids} == {"GPU-2": (63, 94), "GPU-5": (79,)}
    assert all(not gpu.xids for gpu in gpus.read().gpus)


def test_lost_gpu_is_told_with_its_uuid(gpus: NvmlGpus, nvml: Any) -> None:
    """A GPU that fell off the bus is known by the uuid that it had, and holds up no other."""
    gpus.read()
    nvml.gpus[1].lost = True
    reading = gpus.read()
    assert reading.gpus[1].signals == {Signal.LOST: 1}
    assert reading.gpus[1].device == "GPU-1"
    assert reading.gpus[2].signals[Signal.LOST] == 0


def test_gpu_that_was_lost_before_anybody_looked(nvml: Any) -> None:
    """Without a uuid the index says which one."""
    nvml.gpus[1].lost = True
    assert NvmlGpus(nvml).read().gpus[1].device == "1"


@pytest.mark.parametrize(
    ("code", "mismatch", "loaded", "said"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, True, True, "version mismatch"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, False, False, "Driver Not Loaded"),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, False, False, "NVML Shared Library Not Found"),
        (pynvml.NVML_ERROR_UNKNOWN, False, False, "Unknown Error"),
    ],
)
def test_driver_that_does_not_answer(nvml: Any, code: int, mismatch: bool, loaded: bool, said: str) -> None:
    """No driver, or one that does not fit its library, is told in the reading."""
    nvml.failing = code
    reading = NvmlGpus(nvml).read()
    assert (reading.mismatch, reading.loaded, reading.gpus) == (mismatch, loaded, ())
    assert said in reading.problem


def test_driver_that_is_exchanged_is_found_again(gpus: NvmlGpus, nvml: Any) -> None:
    """After a driver went away and came back the library is started anew, and events are delivered again."""
    gpus.read()
    nvml.failing = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert not gpus.read().loaded
    nvml.failing = None
    assert len(gpus.read().gpus) == 8
    nvml.events.append((nvml.gpus[0], 48))
    assert gpus.read().gpus[0].xids == (48,)


def test_this_machine_can_be_asked() -> None:
    """The real library, or that there is none, is a reading and no exception."""
    reading = NvmlGpus().read()
    assert reading.gpus or reading.problem
