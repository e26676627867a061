"""The GPU of this machine, and each thing that can be missing, with its own message."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_fake import FakeGpu, Machine

from emadeploy.contract.errors import BackendMissing, DeviceError, SpecError
from emadeploy.runtime.trt import cuda_driver, device
from emadeploy.runtime.trt.cuda_driver import load_driver
from emadeploy.runtime.trt.device import Device, here

Install = Callable[..., Machine]
MODULES = ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.cuda")


@pytest.fixture
def bare(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither package."""
    install_cuda("cuda-python-13.5.0")
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("emadeploy.runtime.trt.pycuda", "emadeploy.runtime.trt.cuda"):
        sys.modules.pop(name, None)


def test_the_gpu_that_is_here(cuda: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = tmp_path / "version"
    kernel.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Sep 2\nGCC version: 12.2.0\n")
    monkeypatch.setattr(device, "_KERNEL_MODULE", kernel)
    assert here() == Device("NVIDIA Fake 4000", "8.9", "580.159.04", "12.6", 8 << 30)
    open_module = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.12  Release Build\n"
    kernel.write_text(open_module)
    assert here().driver == "570.12"
    kernel.unlink()
    assert here().driver == "12.6"


def test_a_jetson_is_called_by_its_board(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cuda("cuda-python-12.9.10", (FakeGpu("Orin", (8, 7), 7_990_000_000),), cuda=12060)
    monkeypatch.setattr(device, "jetson_model", lambda: "NVIDIA Jetson Orin Nano Developer Kit")
    monkeypatch.setattr(device, "l4t_version", lambda: "36.4.4")
    wanted = Device("NVIDIA Jetson Orin Nano Developer Kit", "8.7", "36.4.4", "12.6", 7_990_000_000)
    assert here() == wanted


def test_a_driver_that_finds_no_gpu(cuda: Machine) -> None:
    cuda.gpus = ()
    with pytest.raises(
        DeviceError, match=r"no NVIDIA GPU on this machine: its driver is installed and finds none.*cpu|CPU"
    ):
        here()
    cuda.fail("cuDeviceGetCount", "CUDA_ERROR_NO_DEVICE")
    cuda.gpus = (FakeGpu(),)
    with pytest.raises(DeviceError, match="no NVIDIA GPU on this machine"):
        here()
    assert here().name == "NVIDIA Fake 4000"


@pytest.mark.parametrize("error", ["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "CUDA_ERROR_STUB_LIBRARY"])
def test_a_driver_that_is_too_old(cuda: Machine, error: str) -> None:
    cuda.fail("cuInit", error)
    with pytest.raises(DeviceError, match=r"the NVIDIA driver is too old or half installed \(CUDA: cuInit failed"):
        here()


def test_another_error_is_told_as_it_is(cuda: Machine) -> None:
    cuda.fail("cuInit", "CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(DeviceError, match="CUDA: cuInit failed with CUDA_ERROR_LAUNCH_FAILED"):
        here()


def test_one_of_several_gpus(install_cuda: Install) -> None:
    install_cuda("pycuda-2026.1", (FakeGpu("one"), FakeGpu("two", (12, 0))))
    assert (here(1).name, here(1).compute_capability) == ("two", "12.0")
    with pytest.raises(DeviceError, match="device 'gpu:2' is not here: the driver finds gpu:0 to gpu:1"):
        here(2)


@pytest.mark.parametrize("words", ["Failed to dlopen libcuda.so.1", '"cuda" is an NVIDIA driver library and can only'])
def test_cuda_python_without_a_driver(install_cuda: Install, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """What cuda-python 12.8 and 13.5 raised on a machine without one."""
    install_cuda("cuda-python-13.5.0")

    def init(flags: int) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuInit", init)
    with pytest.raises(
        DeviceError, match=r"no NVIDIA driver on this machine: libcuda.so.1 is not found.* openvino-int8"
    ):
        here()


def test_cuda_python_over_an_older_driver(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cuda("cuda-python-13.5.0")

    def init(flags: int) -> None:
        raise RuntimeError('Function "cuInit" not found')

    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuInit", init)
    with pytest.raises(DeviceError, match=r"the NVIDIA driver is too old for cuda-python .*cuInit"):
        here()


class Raises:
    """A finder that has a package whose import fails."""

    def __init__(self, package: str, error: ImportError) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.package:
            raise self.error


def break_pycuda(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    monkeypatch.delitem(sys.modules, "pycuda", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Raises("pycuda", error), *sys.meta_path])


def test_pycuda_without_a_driver(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    break_pycuda(monkeypatch, ImportError("libcuda.so.1: cannot open shared object file: No such file or directory"))
    with pytest.raises(DeviceError, match="no NVIDIA driver on this machine"):
        here()


def test_a_broken_pycuda_is_not_passed_over(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cuda("cuda-python-13.5.0")
    break_pycuda(monkeypatch, ImportError("numpy.core.multiarray failed to import"))
    with pytest.raises(
        BackendMissing, match=r"pycuda is installed, but .*multiarray.* or set EMADEPLOY_CUDA=cuda-python"
    ):
        here()
    monkeypatch.setenv("EMADEPLOY_CUDA", "cuda-python")
    assert here().name == "NVIDIA Fake 4000"


def test_pycuda_is_taken_before_cuda_python(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cuda("cuda-python-13.5.0")
    both = {name: sys.modules[name] for name in ("cuda", "cuda.bindings", "cuda.bindings.driver")}
    install_cuda("pycuda-2026.1")
    for name, module in both.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert load_driver().package == "pycuda"
    assert load_driver("cuda-python").package == "cuda-python"
    monkeypatch.setenv("EMADEPLOY_CUDA", "cuda-python")
    assert load_driver().package == "cuda-python"


def test_neither_package_and_a_driver(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_has_driver", lambda: True)
    with pytest.raises(BackendMissing, match=r"pycuda or cuda-python, .*pip install 'emadeploy\[tensorrt\]' \(or"):
        here()
    monkeypatch.setenv("EMADEPLOY_CUDA", "pycuda")
    with pytest.raises(
        BackendMissing, match=r"needs pycuda, which is not installed: pip install 'emadeploy\[pycuda\]'$"
    ):
        here()


def test_neither_package_nor_a_driver(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_has_driver", lambda: False)
    with pytest.raises(DeviceError, match="no NVIDIA driver on this machine"):
        here()


def test_a_choice_that_is_none(install_cuda: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cuda("cuda-python-13.5.0")
    monkeypatch.setenv("EMADEPLOY_CUDA", "cupy")
    with pytest.raises(SpecError, match="EMADEPLOY_CUDA='cupy' is unknown; known: pycuda, cuda-python"):
        here()
