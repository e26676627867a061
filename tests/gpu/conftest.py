"""The GPU of this machine, through each package that is installed; without one, these tests are skipped.

A GPU that is there and cannot be opened is an error: else a broken driver would make all of them pass by skipping.
"""

import importlib.util
from pathlib import Path

import pytest

from emadeploy.contract.errors import BackendMissing, DeviceError
from emadeploy.runtime.trt.cuda_driver import ADAPTERS, CHOICE
from emadeploy.runtime.trt.memory import Gpu, open_gpu

#: What the kernel shows of an NVIDIA GPU, on a desktop and on a Jetson.
GPUS = (Path("/dev/nvidia0"), Path("/dev/nvhost-gpu"), Path("/dev/nvgpu"))


@pytest.fixture(params=list(ADAPTERS))
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The first GPU, through pycuda and through cuda-python: that package alone is used meanwhile."""
    monkeypatch.setenv(CHOICE, request.param)
    try:
        found = open_gpu(0, request.param)
    except BackendMissing as error:
        pytest.skip(str(error))
    except DeviceError as error:
        if any(path.exists() for path in GPUS):
            raise
        pytest.skip(str(error))
    return found


@pytest.fixture
def cuda_torch() -> None:
    """PyTorch sees a GPU."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"PyTorch {torch.__version__} sees no GPU")
