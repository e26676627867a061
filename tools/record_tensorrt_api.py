"""Record what versions of TensorRT's Python module have: tests/reference/tensorrt_api, which fakes are made from.

    python tools/record_tensorrt_api.py                       # every version that the tests use, from PyPI
    python tools/record_tensorrt_api.py WHEEL -o RECORD.json  # one bindings wheel at hand

TensorRT's libraries are not on PyPI, its bindings are: an extension module of pybind11 that registers its classes when
it is imported and calls the libraries only later. So it is imported against empty libraries that have the few symbols
it asks for, and asked what it has. Nothing of NVIDIA's runs. Linux, a C compiler, binutils and pip are needed; the
record says which wheel it came from.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import util
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tests" / "reference" / "tensorrt_api"
#: Record -> the wheel on PyPI.
WHEELS = {
    "tensorrt-8.6": "tensorrt-bindings==8.6.1",
    "tensorrt-10.3": "tensorrt-cu12-bindings==10.3.0",
    "tensorrt-10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "tensorrt-11.4": "tensorrt-cu13-bindings==11.4.0.106",
    "tensorrt_rtx-1.7": "tensorrt-rtx-cu13-bindings==1.7.1.116",
}
#: Left out: making networks layer by layer, and plugins, which nothing here does.
_SKIPPED = re.compile(r"I\w+Layer|I?Plugin\w*|\w*Plugin\w*|Dims\w*|.*Field.*|V3\w*|Uff\w*|Caffe\w*|IInt8\w*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--surface", type=Path, help=argparse.SUPPRESS)  # what the process that imports is asked
    asked = parser.parse_args()
    if asked.surface:
        json.dump(surface(_imported(asked.surface)), sys.stdout)
    elif asked.wheel:
        _write(record(asked.wheel), asked.output or FOLDER / f"{asked.wheel.stem}.json")
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, requirement in WHEELS.items():
                _write(record(_download(requirement, Path(folder) / name)), FOLDER / f"{name}.json")


def record(wheel: Path) -> dict[str, Any]:
    """Return the record of the bindings in ``wheel``: its source, its version and its surface."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zipfile.ZipFile(wheel).extractall(folder)
        (extension,) = folder.glob("tensorrt*_bindings/tensorrt*.so")
        libraries = folder / "empty"
        _empty_libraries(extension, libraries)
        command = [sys.executable, __file__, "--surface", str(extension)]
        told = subprocess.run(
            command, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}, capture_output=True, text=True, check=True
        )
        init = (extension.parent / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"', init, re.MULTILINE)
    assert version, f"{wheel}: its __init__.py says no version"
    return {
        "source": f"{wheel.name} from PyPI, imported against empty libraries by tools/record_tensorrt_api.py",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "module": extension.name.split(".")[0],
        "version": version[1],
        **json.loads(told.stdout),
    }


def surface(module: Any) -> dict[str, Any]:
    """Return what ``module`` has: 'functions' and 'classes' by name.

    A class is its 'bases', 'methods' with the parameters of each overload ('name?' may be left out), 'properties'
    with whether they can be set, and 'members' where it is an enumeration.
    """
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    kept = {name: _class(value) for name, value in sorted(classes.items()) if not _SKIPPED.fullmatch(name)}
    functions = {name: _overloads(value) for name, value in sorted(vars(module).items()) if inspect.isroutine(value)}
    return {"functions": functions, "classes": kept}


def _class(cls: Any) -> dict[str, Any]:
    members = list(getattr(cls, "__members__", {}))
    found: dict[str, Any] = {"bases": [base.__name__ for base in cls.__mro__[1:] if base.__name__[0] != "p"][:-1]}
    if members:
        return {**found, "members": members}
    methods, properties = {}, {}
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, property):
            properties[name] = value.fset is not None
        elif name == "__init__" or (not name.startswith("_") and inspect.isroutine(getattr(cls, name))):
            methods[name] = _overloads(getattr(cls, name))
        elif isinstance(value, type) and not name.startswith("_"):
            found.setdefault("classes", {})[name] = _class(value)
    return {**found, "methods": methods, "properties": properties}


def _overloads(routine: Any) -> list[list[str]]:
    """Return the parameters of each overload, as pybind11 writes them into the documentation."""
    pattern = rf"^(?:\d+\. )?{re.escape(routine.__name__)}\((.*)\) -> "
    return [_parameters(found) for found in re.findall(pattern, routine.__doc__ or "", re.MULTILINE)]


def _parameters(text: str) -> list[str]:
    parameters = re.split(r", (?=\w+: |\*)", text)
    names = [f"{part.split(':')[0]}{'?' if ' = ' in part else ''}" for part in parameters if part]
    return names[1:] if names and names[0] == "self" else names


def _imported(extension: Path) -> Any:
    name = f"{extension.parent.name}.{extension.name.split('.')[0]}"
    spec = util.spec_from_file_location(name, extension)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _empty_libraries(extension: Path, folder: Path) -> None:
    """Make libraries of the names that ``extension`` needs, with functions of the names that it lacks."""
    folder.mkdir()
    needed = re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-d", str(extension)))
    undefined = [line.split()[-1] for line in _output("nm", "-D", "--undefined-only", str(extension)).splitlines()]
    system = re.compile(r".*@.*|_?Py.*|__cxa.*|_ITM.*|__gmon.*|_Unwind.*|_ZGT.*")
    symbols = [symbol for symbol in undefined if not system.fullmatch(symbol)]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
    for library in needed:
        if library.startswith(("libnv", "libtensorrt")):
            output = f"-Wl,-soname,{library}"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / library), str(source), output], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _download(requirement: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(folder), requirement], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{path.name}: {found['module']} {found['version']}, {len(found['classes'])} classes")


if __name__ == "__main__":
    main()
