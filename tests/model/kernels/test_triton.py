"""The Triton kernels agree with the reference, compile for the devices they are meant for, and are chosen there."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]
from triton.compiler import ASTSource  # type: ignore[import-untyped]

from helios_model import kernels
from helios_model.kernels import reference, triton_gated_residual, triton_modulated_norm, triton_norm_rope

AGREEMENT = Path(__file__).with_name("agreement.py")


def check_agreement(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(AGREEMENT)]
    run = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^\d+ passed in ", run.stdout, re.MULTILINE), f"all run, none skipped: {run.stdout}"


@pytest.mark.timeout(600)
def test_kernels_agree_with_the_reference_in_the_interpreter() -> None:
    check_agreement({"TRITON_INTERPRET": "1"})


@pytest.mark.gpu
def test_kernels_agree_with_the_reference_on_the_device() -> None:
    check_agreement({"TRITON_INTERPRET": "0"})


class Recorder:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: object, **options: object) -> None:
            self.arguments, self.options = arguments, options

        return launch


def launches(module: ModuleType, heads: int) -> list[Callable[[], object]]:
    """Calls that launch `_forward` and `_backward` of a module at a network's width, 128 dimensions a head."""
    dim = 128 * heads
    x, vector, row = torch.zeros(1, 64, dim, dtype=torch.bfloat16), torch.zeros(1, 1, dim), torch.zeros(1, 64)
    weight, turn = torch.zeros(dim), torch.zeros(1, 64, 64)
    if module is triton_modulated_norm:
        return [lambda: module._norm(x, vector, vector, 1e-6), lambda: module._norm_backward(x, x, vector, row, row)]
    if module is triton_norm_rope:
        return [
            lambda: module._norm(x, weight, turn, turn, 1e-6),
            lambda: module._norm_backward(x, x, weight, turn, turn, row),
        ]
    return [lambda: module._residual(x, x, vector), lambda: module._residual_backward(x, x, vector)]


def types(kernel: Any, launched: Recorder) -> dict[str, str]:
    names = {torch.bfloat16: "*bf16", torch.float32: "*fp32", int: "i32", float: "fp32"}
    of = [names[value.dtype if isinstance(value, Tensor) else type(value)] for value in launched.arguments]
    return dict(zip(kernel.arg_names, of + ["constexpr"] * len(kernel.arg_names), strict=False))


@pytest.mark.parametrize(("capability", "heads"), [(90, 40), (80, 12)], ids=["14B on sm_90", "1.3B on sm_80"])
@pytest.mark.parametrize(
    "module", [triton_modulated_norm, triton_norm_rope, triton_gated_residual], ids=lambda module: module.__name__
)
def test_kernels_compile_for_devices_without_spilling_registers(
    module: ModuleType, capability: int, heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    for name, call in zip(("_forward", "_backward"), launches(module, heads), strict=True):
        kernel, launched = getattr(module, name), Recorder()
        monkeypatch.setattr(module, name, launched)
        call()
        signature = types(kernel, launched)
        warps = launched.options.pop("num_warps", 4)
        aligned = {
            (place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")
        }
        compiled = triton.compile(
            ASTSource(kernel, signature, launched.options, aligned),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": warps, "enable_fp_fusion": True},
        )
        binary = tmp_path / f"{name}.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        report = subprocess.run([tool, "-res-usage", str(binary)], capture_output=True, text=True, check=True).stdout
        assert re.search(r"STACK:0\b.* LOCAL:0\b", report), report


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of our operators, in the order of their calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "helios_model":
            self.names.append(func.name().removeprefix("helios_model::"))
        return func(*args, **(kwargs or {}))


def use_all(x: Tensor, vector: Tensor, weight: Tensor, turn: Tensor) -> Tensor:
    normed = kernels.modulated_norm(x, vector, vector, 1e-6)
    turned = kernels.norm_rope(normed, weight, turn, turn, 3, 1e-6)
    return kernels.gated_residual(x, turned.flatten(2), vector)


def inputs(device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    x = torch.randn(2, 5, 24, device=device, dtype=dtype, requires_grad=True)
    vector, weight = (torch.randn(*shape, device=device, requires_grad=True) for shape in ((2, 1, 24), (24,)))
    return [x, vector, weight, torch.randn(1, 5, 4, device=device)]


def test_tensors_of_a_cuda_device_go_through_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fake tensors, which have a device but no numbers; a torch without CUDA takes no gradients of such."""
    monkeypatch.setattr(kernels, "TRITON", True)
    with FakeTensorMode(), torch.no_grad(), Calls() as calls:
        given = inputs("cuda", torch.bfloat16)
        out = use_all(*given)
    assert calls.names == ["modulated_norm", "norm_rope", "gated_residual"]
    assert (out.shape, out.dtype, out.device.type) == (given[0].shape, torch.bfloat16, "cuda")


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 5, 8448), torch.bfloat16), ((1, 0, 24), torch.float32), ((1, 5, 24), torch.float64)]
)
def test_what_the_kernels_do_not_know_goes_through_torch(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows too long for registers, no rows at all, fp64."""
    monkeypatch.setattr(kernels, "TRITON", True)
    with FakeTensorMode(), Calls() as calls:
        x, vector = torch.empty(shape, device="cuda", dtype=dtype), torch.empty(1, 1, shape[-1], device="cuda")
        assert kernels.gated_residual(x, x, vector).shape == shape
        assert kernels.modulated_norm(x, vector, vector, 1e-6).dtype == dtype
    assert calls.names == []


def test_cpu_tensors_go_through_torch_and_compile_into_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "TRITON", True)
    given, grad = inputs("cpu"), torch.randn(2, 5, 24)
    with Calls() as calls:
        want = torch.autograd.grad(use_all(*given), given[:3], grad)
    assert calls.names == []
    compiled = torch.compile(use_all, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*given), given[:3], grad), want)


def test_the_package_works_where_triton_is_not_installed() -> None:
    code = """
import sys
sys.modules["triton"] = None  # an import of it raises ImportError
import importlib.util, torch
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
torch.backends.cuda.is_built = lambda: True
from helios_model import kernels
x = torch.ones(1, 2, 4)
assert kernels.gated_residual(x, x, x[:, :1]).sum() == 16
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_offsets_beyond_32_bits_are_right() -> None:
    """The last rows of tensors with more than 2^31 elements."""
    tokens, dim = 2**31 // 5120 + 100, 5120
    x = torch.zeros(1, tokens, dim, device="cuda", dtype=torch.bfloat16)
    x[:, -3:] = torch.randn(3, dim, device="cuda")
    vector, weight = torch.randn(1, 1, dim, device="cuda"), torch.randn(dim, device="cuda")
    turn = torch.randn(1, tokens, 64, device="cuda")
    end, turn_end = x[:, -3:], turn[:, -3:]
    for whole, part in [
        (
            kernels.modulated_norm(x, vector, vector, 1e-6),
            reference.modulated_norm(end, vector, vector, 1e-6),
        ),
        (
            kernels.norm_rope(x, weight, turn, turn, 40, 1e-6),
            reference.norm_rope(end, weight, turn_end, turn_end, 40, 1e-6),
        ),
        (kernels.gated_residual(x, x, vector), reference.gated_residual(end, end, vector)),
    ]:
        torch.testing.assert_close(whole[:, -3:], part, rtol=2e-2, atol=1e-3)
