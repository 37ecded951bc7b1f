"""A node's GPUs as a test wants them, and a real Kubernetes API server where one can be started."""

import os
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

KUBE_TOOL = "HELIOS_KUBE_TOOL"
"""Names the program that starts a Kubernetes API server; `kube-down` lies beside it."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"kube: needs a Kubernetes API server, which {KUBE_TOOL} starts; else not run")


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The admin's access to a real API server without nodes; beside it `restricted.kubeconfig`, which may little."""
    tool = Path(os.environ.get(KUBE_TOOL) or Path(__file__).parents[4] / "shared" / "tools" / "kube" / "kube-up")
    if not tool.exists():
        pytest.skip(f"no Kubernetes API server: {tool} is not there; {KUBE_TOOL} names another")
    folder = tmp_path_factory.mktemp("kube")
    subprocess.run([tool, "--dir", folder, "--no-nodes"], check=True, capture_output=True, timeout=180)
    yield folder / "kubeconfig"
    subprocess.run([tool.with_name("kube-down"), "--dir", folder], check=True, capture_output=True, timeout=60)


@dataclass
class FakeGpu:
    """What one GPU answers; an exception in the place of a value is raised.

    Attributes:
        unsupported: functions that this model does not have.
    """

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    memory: int = 80 << 30
    volatile: int = 0
    aggregate: int = 0
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)
    throttle: int = 0
    temperature: int = 40
    replays: int = 0
    lost: bool = False
    unsupported: set[str] = field(default_factory=set)


class FakeNvml:
    """The functions of `pynvml` that a node agent calls, over GPUs that are not there.

    Constants and exceptions are the real module's, and what fails, fails as the real library does.
    """

    def __init__(self, gpus: int = 0) -> None:
        self.gpus = [FakeGpu(f"GPU-{index}") for index in range(gpus)]
        self.events: deque[tuple[FakeGpu, int]] = deque()
        self.failing: int | None = None
        self.starts = 0
        self._begun = False
        self._registered: list[FakeGpu] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml") and callable(getattr(pynvml, name, None)):
            raise AssertionError(f"{name} is not faked")
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:  # noqa: N802  # the library's own names, here and below
        self._fail()
        self._begun, self.starts = True, self.starts + 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._check()
        self._begun, self._registered = False, []

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._check()
        return "575.57.08"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._check()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        self._check()
        return self._there(self.gpus[index])

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return self._there(gpu).uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:  # noqa: N802
        return self._there(gpu, "nvmlDeviceGetName").name

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(total=self._there(gpu, "nvmlDeviceGetMemoryInfo").memory)

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, kind: int, counter: int) -> int:  # noqa: N802
        assert kind == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        gpu = self._there(gpu, "nvmlDeviceGetTotalEccErrors")
        return {pynvml.NVML_VOLATILE_ECC: gpu.volatile, pynvml.NVML_AGGREGATE_ECC: gpu.aggregate}[counter]

    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> tuple[int, int, int, int]:  # noqa: N802
        return self._there(gpu, "nvmlDeviceGetRemappedRows").remapped

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: FakeGpu) -> int:  # noqa: N802
        return self._there(gpu, "nvmlDeviceGetCurrentClocksThrottleReasons").throttle

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:  # noqa: N802
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._there(gpu, "nvmlDeviceGetTemperature").temperature

    def nvmlDeviceGetPcieReplayCounter(self, gpu: FakeGpu) -> int:  # noqa: N802
        return self._there(gpu, "nvmlDeviceGetPcieReplayCounter").replays

    def nvmlEventSetCreate(self) -> object:  # noqa: N802
        self._check()
        return self

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, kinds: int, events: object) -> None:  # noqa: N802
        assert kinds == pynvml.nvmlEventTypeXidCriticalError
        assert events is self
        self._registered.append(self._there(gpu, "nvmlDeviceRegisterEvents"))

    def nvmlEventSetWait(self, events: object, timeout_ms: int) -> Any:  # noqa: N802
        assert events is self
        assert timeout_ms == 0, "a look must not wait"
        self._check()
        while self.events:
            gpu, xid = self.events.popleft()
            if gpu in self._registered:
                return SimpleNamespace(device=gpu, eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=xid)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)

    def _fail(self) -> None:
        if self.failing is not None:
            raise pynvml.NVMLError(self.failing)

    def _check(self) -> None:
        self._fail()
        if not self._begun:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _there(self, gpu: FakeGpu, function: str = "") -> FakeGpu:
        self._check()
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if function in gpu.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu


@pytest.fixture
def nvml() -> FakeNvml:
    """A node with eight GPUs that are well."""
    return FakeNvml(8)
