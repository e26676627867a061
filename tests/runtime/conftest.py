"""CUDA as its packages have it, without a GPU."""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda_fake import VERSIONS, FakeGpu, FakeLibrary, Machine, fake_cuda_python, fake_pycuda

from emadeploy.runtime.trt import cuda_driver, device, memory

ADAPTERS = ("emadeploy.runtime.trt.pycuda", "emadeploy.runtime.trt.cuda")


@pytest.fixture
def install_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Machine]]:
    """Return a function that installs a fake version ('pycuda-2026.1') on a fake machine, as if nothing had loaded it.

    What a test leaves behind on the machine, taken or pushed, fails the test.
    """
    machines: list[Machine] = []

    def forget() -> None:
        for adapter in ADAPTERS:
            sys.modules.pop(adapter, None)
        cuda_driver._load.cache_clear()
        memory._OPEN.clear()

    def install(version: str, gpus: tuple[FakeGpu, ...] = (FakeGpu(),), **facts: Any) -> Machine:
        machine = Machine(gpus, **facts)
        make = fake_pycuda if version.startswith("pycuda") else fake_cuda_python
        for name, module in make(machine, version).items():
            monkeypatch.setitem(sys.modules, name, module)
        forget()
        if version.startswith("pycuda"):
            monkeypatch.setattr(importlib.import_module(ADAPTERS[0]), "_library", lambda: FakeLibrary(machine))
        machines.append(machine)
        return machine

    monkeypatch.delenv(cuda_driver.CHOICE, raising=False)
    monkeypatch.setattr(device, "jetson_model", lambda: None)
    monkeypatch.setattr(device, "l4t_version", lambda: None)
    yield install
    gc.collect()
    for machine in machines:
        assert machine.kinds() == []
        assert machine.stack == []
    forget()


@pytest.fixture(params=VERSIONS)
def cuda(request: pytest.FixtureRequest, install_cuda: Callable[..., Machine]) -> Machine:
    """A machine with one GPU, through each recorded version of pycuda and cuda-python."""
    return install_cuda(request.param)
