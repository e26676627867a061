"""pycuda and cuda-python as they are, where they are installed, over a stand-in for the driver's library."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emadeploy.runtime.trt.cuda_driver import ADAPTERS

TESTS = Path(__file__).parents[2]
MODULES = {"pycuda": "pycuda._driver", "cuda-python": "cuda.bindings.driver"}

LEFT = """
import ctypes, gc
from emadeploy.runtime.trt.memory import Arena, open_gpu
fake = ctypes.CDLL("libcuda.so.1")
gpu = open_gpu()
arena = Arena(gpu)
stream = arena.stream()
arena.event(), arena.buffer(64), arena.pinned((8,), "float32"), arena.graph(stream, lambda: None)
print(gpu.driver.package, fake.fake_live(), end=" ")
arena.close()
print(fake.fake_live(), fake.fake_depth(), end=" ")
forgotten = Arena(gpu)
forgotten.stream(), forgotten.buffer(1)
del forgotten
gc.collect()
print(fake.fake_live(), fake.fake_depth())
left_to_the_end = Arena(gpu)
left_to_the_end.stream(), left_to_the_end.buffer(1)
"""


@pytest.fixture(params=list(ADAPTERS))
def package(request: pytest.FixtureRequest) -> str:
    try:
        found = importlib.util.find_spec(MODULES[request.param])
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def environment(package: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the stand-in is the driver, and ``package`` the one that is used."""
    compiler, nm = shutil.which("g++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("no g++ and nm to make the stand-in with")
    made, source = tmp_path / "fake.o", TESTS / "libcuda_fake.cpp"
    subprocess.run([compiler, "-std=c++17", "-O1", "-fPIC", "-c", source, "-o", made], check=True)
    (tmp_path / "rest.cpp").write_text(_unsupported(package, nm, made))
    library = tmp_path / "libcuda.so.1"
    argv = [
        compiler,
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        library,
        made,
        tmp_path / "rest.cpp",
        "-ldl",
    ]
    subprocess.run(argv, check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "EMADEPLOY_CUDA": package}


def _unsupported(package: str, nm: str, made: Path) -> str:
    """Return the source of all that pycuda is linked with and the stand-in does not have."""
    if package != "pycuda":
        return ""  # it asks for each function by name
    spec = importlib.util.find_spec(MODULES[package])
    assert spec is not None
    needed = subprocess.run(
        [nm, "-D", "--undefined-only", str(spec.origin)], capture_output=True, text=True, check=True
    )
    present = subprocess.run([nm, "--defined-only", made], capture_output=True, text=True, check=True)
    names = set(re.findall(r"\b(cu[A-Z]\w+)$", needed.stdout, re.M)) - set(
        re.findall(r"\b(cu\w+)$", present.stdout, re.M)
    )
    return "\n".join(f'extern "C" int {name}() {{ return 801; }}' for name in sorted(names))


def test_the_suite_of_the_gpu_s_memory_passes(package: str, environment: dict[str, str]) -> None:
    suite = TESTS / "gpu" / "test_gpu_memory.py"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(suite),
        "-k",
        f"{package} and not torch",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b8 passed", done.stdout), done.stdout


def test_all_is_given_back_and_nothing_is_said_at_the_end(package: str, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-c", LEFT]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, cwd=TESTS.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [package, "5", "0", "0", "0", "0"]
