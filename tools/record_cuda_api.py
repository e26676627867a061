"""Record what the installed cuda-python or pycuda has of CUDA, for the tests' fake: tests/reference/cuda_api.json.

python tools/record_cuda_api.py       in an environment with cuda-bindings (or an older cuda-python), or pycuda
"""

from __future__ import annotations

import importlib
import json
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent.parent / "tests" / "reference" / "cuda_api.json"
FUNCTIONS = re.compile(
    r"cu(Init|Driver|DeviceGet|DeviceTotal|DevicePrimary|Ctx(Push|Pop)|Stream|Event|GetError|"
    r"Mem(Alloc|Free|Host|GetInfo|cpy\w+Async)|Graph(Instantiate|Launch|ExecDestroy|Destroy))\w*$"
)


def main() -> None:
    """Add the surface of what is installed to the record."""
    found: dict[str, Any] = {}
    for record in (record_cuda_python, record_pycuda):
        with suppress(ModuleNotFoundError):
            found |= record()
    known = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    RECORD.write_text(json.dumps(known | found, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"recorded {', '.join(found) or 'nothing'}: {RECORD}")


def record_cuda_python() -> dict[str, Any]:
    """Return the functions of cuda-python with their parameters, from the first lines of their docstrings."""
    try:
        module = importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError:
        module = importlib.import_module("cuda.cuda")
    functions = {}
    for name in filter(FUNCTIONS.match, dir(module)):
        signature = (getattr(module, name).__doc__ or "").strip().split("\n")[0]
        parameters = signature[len(name) + 1 : signature.rfind(")")]
        functions[name] = [part.split(":")[0].split()[-1] for part in parameters.split(", ") if part.strip()]
    return {f"cuda-python-{_version()}": {"module": module.__name__, "functions": functions}}


def record_pycuda() -> dict[str, Any]:
    """Return the functions and classes of pycuda.driver, without parameters: it is Boost.Python's."""
    import pycuda
    import pycuda.driver as module

    public = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    classes = {
        name: sorted(attribute for attribute in dir(thing) if not attribute.startswith("_"))
        for name, thing in public.items()
        if isinstance(thing, type) and thing.__module__.startswith("pycuda")
    }
    functions = sorted(name for name, thing in public.items() if callable(thing) and not isinstance(thing, type))
    return {f"pycuda-{pycuda.VERSION_TEXT}": {"classes": classes, "functions": functions}}


def _version() -> str:
    try:
        return version("cuda-bindings")
    except PackageNotFoundError:
        return version("cuda-python")


if __name__ == "__main__":
    main()
