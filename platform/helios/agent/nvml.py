"""What a node's GPUs are and how they are, as NVIDIA's management library tells it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

_log = logging.getLogger(__name__)


class Signal(StrEnum):
    """What can be measured. Each is a number; 1 where something is so. Counters only rise, but for a reset."""

    LOST = "lost"
    XID = "xid"
    ECC_VOLATILE = "ecc_uncorrectable_volatile"
    ECC_AGGREGATE = "ecc_uncorrectable_aggregate"
    ROW_REMAP_PENDING = "row_remap_pending"
    ROW_REMAP_FAILED = "row_remap_failed"
    THROTTLE_THERMAL = "throttle_thermal"
    THROTTLE_HARDWARE = "throttle_hardware"
    THROTTLE_POWER_BRAKE = "throttle_power_brake"
    TEMPERATURE = "temperature"
    PCIE_REPLAY = "pcie_replay"
    GPUS_MISSING = "gpus_missing"
    DRIVER_MISMATCH = "driver_mismatch"
    DRIVER_GONE = "driver_gone"


NODE_SIGNALS = frozenset({Signal.GPUS_MISSING, Signal.DRIVER_MISMATCH, Signal.DRIVER_GONE})
"""Signals that are about the node and no single GPU."""
COUNTERS = frozenset({Signal.ECC_VOLATILE, Signal.ECC_AGGREGATE, Signal.PCIE_REPLAY})


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it is now.

    Attributes:
        memory: bytes, 0 where it cannot be read.
        signals: what could be measured; what a GPU does not support is left out.
        xids: Xid events since the last reading, in order.
    """

    index: int
    uuid: str = ""
    name: str = ""
    memory: int = 0
    signals: dict[Signal, float] = field(default_factory=dict)
    xids: tuple[int, ...] = ()

    @property
    def device(self) -> str:
        """What findings call it: its uuid, or its index where it does not say."""
        return self.uuid or str(self.index)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a node.

    Attributes:
        problem: why there are no GPUs to be seen, empty where that is not known or not so.
        mismatch: the driver's library and its kernel module are of different versions.
        loaded: whether the driver answers.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""
    mismatch: bool = False
    loaded: bool = True


class Gpus(Protocol):
    """The GPUs of this node. Never raises: what cannot be read is told in the reading."""

    def read(self) -> Reading: ...


class NvmlGpus:
    """`Gpus` through NVML (package nvidia-ml-py).

    Args:
        nvml: the module `pynvml`, or what behaves as it does.
    """

    def __init__(self, nvml: Any = None) -> None:
        if nvml is None:
            import pynvml  # type: ignore[import-untyped]  # only a node agent needs it

            nvml = pynvml
        self._nvml = nvml
        self._begun = False
        self._events: Any = None
        self._watched: set[str] = set()
        self._uuids: dict[int, str] = {}

    def read(self) -> Reading:
        """Look at every GPU once."""
        try:
            self._begin()
            driver = _text(self._nvml.nvmlSystemGetDriverVersion())
            count = int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            self._end()
            return self._failed(error)
        gpus = [self._gpu(index) for index in range(count)]
        xids = self._xids()
        with_xids = tuple(
            Gpu(gpu.index, gpu.uuid, gpu.name, gpu.memory, gpu.signals, tuple(xids.get(gpu.device, ()))) for gpu in gpus
        )
        return Reading(gpus=with_xids, driver=driver)

    def _begin(self) -> None:
        if not self._begun:
            self._nvml.nvmlInit()
            self._begun = True

    def _end(self) -> None:
        """Begin anew with the next reading: a driver that was exchanged answers only to a new start."""
        if self._begun:
            self._begun, self._events, self._watched = False, None, set()
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                _log.info("NVML did not shut down: %s", error)

    def _failed(self, error: Any) -> Reading:
        nvml = self._nvml
        mismatch = error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        return Reading(problem=str(error), mismatch=mismatch, loaded=mismatch)

    def _gpu(self, index: int) -> Gpu:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = self._uuids[index] = _text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError as error:
            _log.warning("GPU %d: %s", index, error)
            return Gpu(index, self._uuids.get(index, ""), signals={Signal.LOST: 1.0})
        self._watch(handle, uuid)
        asked = _Asked(nvml)
        memory = asked.of(nvml.nvmlDeviceGetMemoryInfo, handle)
        signals = {
            Signal.ECC_VOLATILE: asked.of(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            Signal.ECC_AGGREGATE: asked.of(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_AGGREGATE_ECC,
            ),
            Signal.TEMPERATURE: asked.of(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            Signal.PCIE_REPLAY: asked.of(nvml.nvmlDeviceGetPcieReplayCounter, handle),
            **self._remapped(asked.of(nvml.nvmlDeviceGetRemappedRows, handle)),
            **self._throttled(asked.of(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)),
            Signal.LOST: float(asked.lost),
        }
        return Gpu(
            index,
            uuid,
            _text(asked.of(nvml.nvmlDeviceGetName, handle) or ""),
            int(memory.total) if memory is not None else 0,
            {signal: float(value) for signal, value in signals.items() if value is not None},
        )

    def _remapped(self, rows: Any) -> dict[Signal, float]:
        if rows is None:
            return {}
        _, _, pending, failed = rows
        return {Signal.ROW_REMAP_PENDING: float(pending), Signal.ROW_REMAP_FAILED: float(failed)}

    def _throttled(self, reasons: Any) -> dict[Signal, float]:
        if reasons is None:
            return {}
        nvml = self._nvml
        thermal = nvml.nvmlClocksThrottleReasonHwThermalSlowdown | nvml.nvmlClocksThrottleReasonSwThermalSlowdown
        return {
            Signal.THROTTLE_THERMAL: float(bool(reasons & thermal)),
            Signal.THROTTLE_HARDWARE: float(bool(reasons & nvml.nvmlClocksThrottleReasonHwSlowdown)),
            Signal.THROTTLE_POWER_BRAKE: float(bool(reasons & nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown)),
        }

    def _watch(self, handle: Any, uuid: str) -> None:
        """Have this GPU's Xid events delivered; what has none is left alone."""
        if uuid in self._watched:
            return
        self._watched.add(uuid)
        try:
            self._events = self._events or self._nvml.nvmlEventSetCreate()
            self._nvml.nvmlDeviceRegisterEvents(handle, self._nvml.nvmlEventTypeXidCriticalError, self._events)
        except self._nvml.NVMLError as error:
            _log.info("GPU %s tells of no Xid events: %s", uuid, error)

    def _xids(self) -> dict[str, list[int]]:
        """Every event that waits, by uuid."""
        found: dict[str, list[int]] = {}
        while self._events is not None:
            try:
                event = self._nvml.nvmlEventSetWait(self._events, 0)
                uuid = _text(self._nvml.nvmlDeviceGetUUID(event.device))
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    _log.warning("Xid events cannot be read: %s", error)
                    self._events, self._watched = None, set()
                break
            found.setdefault(uuid, []).append(int(event.eventData))
        return found


class _Asked:
    """Questions to one GPU: None for what it does not support; remembers when it does not answer at all."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.lost = False

    def of(self, question: Callable[..., Any], *arguments: Any) -> Any:
        gone = {self._nvml.NVML_ERROR_GPU_IS_LOST, self._nvml.NVML_ERROR_RESET_REQUIRED}
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in gone:
                self.lost = True
            elif error.value != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                _log.info("%s: %s", getattr(question, "__name__", question), error)
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
