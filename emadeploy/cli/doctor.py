"""`emadeploy doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import metadata, util
from typing import Annotated, Any

import typer

from emadeploy import __version__
from emadeploy.contract.errors import EmadeployError
from emadeploy.contract.manifest import TARGETS

#: Package -> the module that it brings, where the names differ.
_MODULES = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "scikit-image": "skimage", "cuda-python": "cuda"}


def command(as_json: Annotated[bool, typer.Option("--json", help="Print json.")] = False) -> None:
    """Show what this machine is, which packages are here, and which targets can be exported and run."""
    from emadeploy.runtime.machine import describe_machine

    record: dict[str, Any] = {
        "schema": 1,
        "emadeploy": __version__,
        "python": platform.python_version(),
        "machine": describe_machine(),
        "packages": packages(),
        "engines": engines(),
        "nvidia": nvidia(),
        "targets": targets(),
    }
    if as_json:
        print(json.dumps(record))
    else:
        _print(record)


def packages() -> list[dict[str, str | None]]:
    """Return the optional packages that emadeploy's own metadata name: what is here, and what installs the rest."""
    try:
        requirements = metadata.requires("emadeploy") or []
    except metadata.PackageNotFoundError:  # a bare source tree
        return []
    pattern = r"([\w.-]+)([^;\[]*); extra == ['\"]([\w-]+)['\"]"
    matches = [match for match in (re.match(pattern, requirement) for requirement in requirements) if match]
    # Extras that hold other extras come out flat: the smallest one is a package's own.
    sizes = Counter(match[3] for match in matches)
    found: dict[str, dict[str, str | None]] = {}
    for match in sorted(matches, key=lambda match: sizes[match[3]]):
        name, wanted, extra = match[1], match[2].strip(), match[3]
        if name not in found and extra != "dev":
            line = f"pip install 'emadeploy[{extra}]'"
            found[name] = {"name": name, "wanted": wanted, "version": _version(name), "install": line}
    return [found[name] for name in sorted(found)]


def engines() -> dict[str, dict[str, list[str]]]:
    """Return per engine that is here and knows its devices, the precisions of each: {'openvino': {'cpu': ['fp32']}}."""
    try:
        from emadeploy.runtime.backends.openvino import capabilities
    except ImportError:
        return {}
    return {"openvino": capabilities()}


def nvidia() -> dict[str, Any]:
    """Return the facts of the 'gpu', and the 'version' of each engine of NVIDIA's; 'why' in place of what is not here.

    {'gpu': {'why': 'no NVIDIA GPU ...'}, 'tensorrt': {'version': '10.3.0'}, 'tensorrt_rtx': {'why': '...'}}
    """
    from emadeploy.runtime.trt.device import here
    from emadeploy.runtime.trt.library import TITLES, load_library

    found: dict[str, Any] = {"gpu": _or_why(lambda: asdict(here()))}
    for engine in TITLES:
        found[engine] = _or_why(lambda engine=engine: {"version": load_library(engine).version_text})
    return found


def _or_why(find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return find()
    except EmadeployError as error:
        return {"why": str(error)}


def targets() -> list[dict[str, str | None]]:
    """Return per target what keeps it from being exported or run here; ``None`` where nothing does."""
    from emadeploy import build
    from emadeploy.runtime.backends import BACKENDS, opener

    try:
        import emadeploy.export.stage  # noqa: F401 - the import is the question

        no_export = None
    except ModuleNotFoundError as error:
        no_export = f"needs {error.name}: pip install 'emadeploy[export]'"
    able, of_nvidia = engines(), nvidia()
    found = []
    for target, (engine, precision) in TARGETS.items():
        unable = None
        if engine in able and not any(precision in precisions for precisions in able[engine].values()):
            unable = f"no device of this machine has {precision}"
        export = no_export or _missing(target in build.targets(), partial(build.builder, engine)) or unable
        run = _missing(engine in BACKENDS, partial(opener, engine)) or unable
        if engine in of_nvidia:
            run = run or of_nvidia[engine].get("why") or of_nvidia["gpu"].get("why")
        found.append({"target": target, "export": export, "run": run})
    return found


def _missing(known: bool, load: Callable[[], object]) -> str | None:
    """Return why ``load`` cannot give an engine's function, or is not ``known`` at all; ``None`` where it can."""
    if not known:
        return "not in this version"
    try:
        load()
    except EmadeployError as error:
        return str(error)
    return None


def _version(package: str) -> str | None:
    """Return the version of what brings the module of ``package``; ``None`` where nothing does."""
    module = _MODULES.get(package, package.replace("-", "_"))
    if util.find_spec(module) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # Another build of the same module: onnxruntime-gpu, opencv-python, a package of the system.
        others = metadata.packages_distributions().get(module, [])
        return f"{metadata.version(others[0])} ({others[0]})" if others else "of unknown version"


def _print(record: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(f"emadeploy {record['emadeploy']}, Python {record['python']}")
    machine = Table("machine", "", box=box.SIMPLE_HEAD)
    for key, value in record["machine"].items():
        machine.add_row(key, Text(", ".join(value) or "none that speeds up int8" if key == "flags" else str(value)))
    console.print(machine)
    if record["engines"]:
        devices = Table("engine", "device", "precisions", box=box.SIMPLE_HEAD)
        for engine, able in record["engines"].items():
            for device, precisions in able.items():
                devices.add_row(engine, device, ", ".join(precisions))
        console.print(devices)
    cards = Table("nvidia", "", box=box.SIMPLE_HEAD)
    for what, facts in record["nvidia"].items():
        cards.add_row(what, Text(facts.get("why") or ", ".join(map(str, facts.values()))))
    console.print(cards)
    optional = Table("package", "wanted", "here", box=box.SIMPLE_HEAD)
    for package in record["packages"]:
        optional.add_row(package["name"], package["wanted"], Text(package["version"] or f"no: {package['install']}"))
    console.print(optional)
    runnable = Table("target", "export", "run", box=box.SIMPLE_HEAD)
    for target in record["targets"]:
        runnable.add_row(*(Text(target[key] or "yes") for key in ("target", "export", "run")))
    console.print(runnable)
