"""The walls of the house: who may import whom (the floors of the design), and what the edge needs (numpy alone).

Each wall is shown to stand by a planted violation that must turn it red.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import emadeploy

PACKAGE = Path(emadeploy.__file__).parent

FLOORS = {
    **dict.fromkeys(["contract"], 1),
    **dict.fromkeys(["nets", "data", "build", "work", "evaluate", "runtime", "zoo", "pictures"], 2),
    **dict.fromkeys(["train", "calibrate", "export", "bench", "serve", "robotics"], 3),
    **dict.fromkeys(["cli"], 4),
}
#: Parts that see less than all that is below them: they measure, serve and run exactly what ships.
SEES_ONLY = {
    "runtime": {"contract"},
    "bench": {"contract", "runtime", "evaluate"},
    "serve": {"contract", "runtime"},
    "robotics": {"contract", "runtime", "pictures"},
}
#: What ``emadeploy/__init__.py`` itself imports; it must not be imported from there.
BELOW_THE_FACE = {"contract", "runtime"}
#: Packages that parts of the house never import, not even inside a function.
HEAVY = {"torch", "lightning", "onnx", "onnxscript", "nncf", "timm"}
LIGHT_PARTS = {"contract", "runtime", "evaluate", "bench", "serve", "robotics"}
#: Folders of the runtime where the module 'x' may import the package 'x'.
_FOREIGN = ("backends", "trt")
#: Calibration works on graphs: the network has been left behind.
WITHOUT_TORCH = {"torch", "lightning", "onnxscript", "timm"}


#: File inside the package, such as 'contract/spec.py' -> its text.
Sources = dict[str, str]


def read_sources() -> Sources:
    """Return the sources of the package as they are."""
    return {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}


def plant(sources: Sources, file: str, line: str) -> Sources:
    """Return the sources with ``line`` added to ``file``."""
    return {**sources, file: f"{sources.get(file, '')}\n{line}\n"}


def module_of(file: str) -> str:
    """Return 'emadeploy.contract' for 'contract/__init__.py'."""
    parts = ("emadeploy", *file.removesuffix(".py").split("/"))
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_nodes(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]


def imports(file: str, text: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every module that the file imports, at the top or inside a function."""
    package = ["emadeploy", *file.split("/")[:-1]]
    for node in import_nodes(text):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
            continue
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            deeper = f"{base}.{alias.name}"
            yield node.lineno, deeper if deeper in known else base


def part_of(module: str) -> str:
    """Return 'contract' for 'emadeploy.contract.spec', '' for the package itself."""
    return module.split(".")[1] if "." in module else ""


def violations(sources: Sources) -> list[str]:
    """Return every import that goes against the floors, as 'file:line: what'."""
    known = {module_of(file) for file in sources}
    found = []
    for file, text in sorted(sources.items()):
        own = part_of(module_of(file))
        if own and own not in FLOORS:
            found.append(f"{file}:1: {own!r} stands on no floor; add it to FLOORS")
            continue
        for line, target in imports(file, text, known):
            problem = _problem(own, module_of(file), target)
            if problem:
                found.append(f"{file}:{line}: {problem}")
    return found


def _problem(own: str, name: str, target: str) -> str | None:
    root = target.split(".")[0]
    if root != "emadeploy":
        light = root == "numpy" or root in sys.stdlib_module_names
        if own == "contract" and not light:
            return f"contract imports {root}; it has numpy alone"
        if own == "runtime" and not light and name not in (f"emadeploy.runtime.{part}.{root}" for part in _FOREIGN):
            return f"runtime imports {root}; only the backend of that name may"
        refused = HEAVY if own in LIGHT_PARTS else WITHOUT_TORCH if own in ("calibrate", "work") else ()
        return f"{own} imports {root}" if root in refused else None
    part = part_of(target)
    if own == part or not own:
        allowed = bool(own) or part in {"", *BELOW_THE_FACE}
    elif not part:
        allowed = own not in BELOW_THE_FACE
    elif own in SEES_ONLY:
        allowed = part in SEES_ONLY[own]
    else:
        allowed = FLOORS.get(part, 9) < FLOORS[own] or FLOORS.get(part) == FLOORS[own] == 2
    return None if allowed else f"{name} imports {target}"


def circles(sources: Sources) -> list[str]:
    """Return the modules that import each other in a circle."""
    known = {module_of(file) for file in sources}
    graph = {module_of(f): {t for _, t in imports(f, text, known) if t in known} for f, text in sources.items()}
    while True:
        # A module that imports none of those left stands in no circle.
        loose = [name for name, targets in graph.items() if not (targets - {name}) & graph.keys()]
        if not loose:
            return sorted(graph)
        for name in loose:
            del graph[name]


def test_every_import_points_down() -> None:
    assert violations(read_sources()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(read_sources()) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("contract/spec.py", "from emadeploy.runtime import load"),
        ("contract/spec.py", "from emadeploy import __version__"),
        ("contract/outputs.py", "import scipy.ndimage"),
        ("runtime/runtime.py", "def late():\n    import torch"),
        ("runtime/runtime.py", "import onnxruntime"),
        ("runtime/trt/record.py", "import pycuda.driver"),
        ("runtime/trt/library.py", "def late():\n    import tensorrt"),
        ("runtime/trt/compiling.py", "from emadeploy.build import audit"),
        ("runtime/runtime.py", "from emadeploy import nets"),
        ("runtime/backends/onnxruntime.py", "from ...evaluate import metrics"),
        ("evaluate/metrics.py", "import torch"),
        ("nets/planted.py", "from emadeploy.export import planted"),
        ("data/planted.py", "import emadeploy.cli.app"),
        ("export/planted.py", "from emadeploy.train import planted"),
        ("train/planted.py", "import emadeploy.export.planted"),
        ("bench/planted.py", "from emadeploy.data import sample"),
        ("serve/planted.py", "from emadeploy.evaluate import metrics"),
        ("calibrate/table.py", "def late():\n    import torch"),
        ("calibrate/planted.py", "from emadeploy.export import stage"),
        ("work/planted.py", "import torch"),
        ("bench/planted.py", "from emadeploy.work import artifact"),
        ("robotics/planted.py", "from emadeploy import zoo"),
        ("robotics/planted.py", "from ..bench import planted"),
        ("attic/planted.py", "import os"),
        ("__init__.py", "from emadeploy import nets"),
    ],
)
def test_a_planted_import_turns_the_wall_red(file: str, line: str) -> None:
    found = violations(plant(read_sources(), file, line))
    assert [problem.split(":")[0] for problem in found] == [file]


def test_a_planted_circle_is_found() -> None:
    found = circles(plant(read_sources(), "contract/errors.py", "from emadeploy.contract import spec"))
    assert {"emadeploy.contract.errors", "emadeploy.contract.spec"} <= set(found)


EDGE = """
import importlib, importlib.abc, pkgutil, sys

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root not in {"numpy", "emadeploy"} and root not in sys.stdlib_module_names:
            raise ImportError(f"the wall: {name}")

sys.meta_path.insert(0, Wall())
import emadeploy, emadeploy.contract, emadeploy.robotics, emadeploy.runtime, emadeploy.runtime.backends
import emadeploy.robotics.ros
import emadeploy.runtime.trt
robotics = (emadeploy.robotics, emadeploy.robotics.ros)
for package in (emadeploy.contract, *robotics, emadeploy.runtime, emadeploy.runtime.trt):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        # The packages of their names, and that of ROS, are what these import.
        if module.name.split(".")[-1] not in {"cuda", "pycuda", "ros2_node"}:
            importlib.import_module(module.name)
print(emadeploy.__file__)
"""


def on_the_edge(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import what the edge needs from the package in ``folder``, in a process with numpy and emadeploy alone."""
    command = [sys.executable, "-c", EDGE]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_edge_needs_numpy_alone() -> None:
    done = on_the_edge(PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == PACKAGE


@pytest.mark.parametrize("file", ["__init__.py", "runtime/runtime.py", "contract/outputs.py"])
def test_a_planted_torch_turns_the_edge_red(tmp_path: Path, file: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "emadeploy", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "emadeploy" / file).open("a") as source:
        source.write("\nimport torch\n")
    done = on_the_edge(tmp_path)
    assert done.returncode != 0
    assert "the wall: torch" in done.stderr


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = "import sys, emadeploy.cli.app; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {*HEAVY, "cv2", "onnxruntime", "scipy", "skimage", "trimesh", "tensorboard", "yaml"}
    assert heavy.isdisjoint(done.stdout.split())
