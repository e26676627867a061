"""The engines that a bench builds for itself: those of one network that this machine runs, kept for the next time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from emadeploy import __version__
from emadeploy.build import builder
from emadeploy.build.folder import publish, scratch
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.cli.doctor import targets
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.make import calibration_frames, make_artifact
from emadeploy.cli.exporting.order import Order
from emadeploy.cli.exporting.portable import PORTABLE
from emadeploy.cli.progress import progress
from emadeploy.contract.cache import default_cache_dir
from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.export.source import Source, open_source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.runtime.machine import cpu_flags

#: The row of the network as its authors published it, which ratios are to.
PUBLISHED = "published"
#: Frames of the calibration: the least that recipes take. It is the speed that is shown.
_CALIBRATED_ON = 16

#: Packages that decide what an engine is.
_MAKERS = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt-rtx")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """An engine that is wanted: the name of its row, its target, the form of CTAL of its graph."""

    name: str
    target: str
    ctal: str | None = None

    @property
    def low_precision(self) -> bool:
        """Whether its graph is for something else than float32."""
        return TARGETS[self.target][1] != "fp32"


def built_in(device: str) -> list[Wish]:
    """Return what this machine can run, the published graph first; with a ``device``, 'cpu' or 'gpu', of it that."""
    able = [row["target"] for row in targets() if row["export"] is None and row["run"] is None]
    kind = device.split(":")[0]
    chosen = [Wish(name, name) for name in able if name is not None and kind in (_kind(name), "auto", "jetson")]
    return [Wish(PUBLISHED, "onnxruntime-fp32", "affinity")] * (kind != "gpu") + chosen


def _kind(target: str) -> str:
    return "gpu" if TARGETS[target][0] in PORTABLE else "cpu"


class Engines:
    """The engines of the network that ``source`` names (`open_source`), in a folder of the cache."""

    def __init__(
        self,
        source: str | None,
        *,
        size: tuple[int, int] | None = None,
        untrained: bool = False,
        tasks: tuple[str, ...] | None = None,
        report: Report = print,
    ) -> None:
        self._name, self._size, self._untrained, self._tasks = source, size, untrained, tasks
        self._report = report
        self._graphs: dict[tuple[str | None, bool], OnnxGraph] = {}

    @cached_property
    def source(self) -> Source:
        """The network. Raises as `open_source`."""
        return open_source(self._name, size=self._size, untrained=self._untrained)

    def build(self, wishes: list[Wish]) -> dict[str, Path]:
        """Return the artifact of each wish: what lies in the cache intact, and the others built now.

        Raises EmadeployError; what was complete by then stays in the cache, and nothing half.
        """
        places = {wish.name: self._place(wish) for wish in wishes}
        missing = [wish for wish in wishes if not _intact(places[wish.name])]
        reused = len(wishes) - len(missing)
        if reused:
            self._report(f"{reused} of {len(wishes)} engines lie ready in {default_cache_dir() / 'bench'}")
        if missing:
            with scratch(places[missing[0].name].parent / "graphs") as folder:
                for index, wish in enumerate(missing, 1):
                    self._report(f"[{index}/{len(missing)}] {wish.name}")
                    self._make(wish, places[wish.name], folder)
        return places

    def _make(self, wish: Wish, place: Path, folder: Path) -> None:
        engine, precision = TARGETS[wish.target]
        order = Order(
            target=wish.target,
            output=place,
            wanted=Wanted(ctal=wish.ctal, tasks=self._tasks),
            size=self._size,
            untrained=self._untrained,
            calib_frames=_CALIBRATED_ON if wish.low_precision else None,
            max_drop="none" if precision == "int8" else None,
        )
        if engine in PORTABLE:
            make_artifact(self._name, order, report=self._report)
            return
        with progress(f"building {wish.name}"):
            graph = self._graph(wish, folder)
            if precision != "int8":
                builder(engine)(graph, place, wish.target)
                return
        recipe = load_recipe(wish.target, None).resolved()
        frames = calibration_frames(self.source.spec, order, recipe)
        quantised = Int8(graph, frames, recipe, wish.target, folder / wish.name, self._report)
        quantised.build(frozenset())
        publish(quantised.artifact, place)

    def _graph(self, wish: Wish, folder: Path) -> OnnxGraph:
        """Return the graph of a wish; each form is traced once, which takes longest of all."""
        form = (wish.ctal, wish.low_precision)
        if form not in self._graphs:
            wanted = Wanted(ctal=wish.ctal, tasks=self._tasks, low_precision=wish.low_precision)
            place = folder / f"graph-{len(self._graphs)}"
            self._graphs[form] = export_graph(self.source, wanted, place, report=self._report, compared=1)
        return self._graphs[form]

    def _place(self, wish: Wish) -> Path:
        key = {
            "emadeploy": __version__,
            "source": dict(self.source.record),
            "spec": self.source.spec.to_dict(),
            "tasks": self._tasks,
            "wish": [wish.target, wish.ctal],
            "frames": _CALIBRATED_ON,
            "flags": cpu_flags(),
            "versions": {package: _version(package) for package in _MAKERS},
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return default_cache_dir() / "bench" / digest / wish.name


def engines_of(artifact: Path, manifest: Manifest, *, report: Report = print) -> Engines:
    """Return the engines of the network that ``artifact`` was made from, at its size and with its tasks.

    Raises ArtifactError where that network is not here any more, or has changed.
    """
    source = manifest.source
    name = str(source.get("checkpoint") or source.get("model") or "").removeprefix("zoo model ")
    if not name:
        raise ArtifactError(
            f"{artifact} is made from no network that is known here: its manifest names neither a model nor a "
            "checkpoint. Export again, or leave --published and --torch out"
        )
    names = tuple(tensor.name for tensor in manifest.outputs)
    engines = Engines(name, size=manifest.model.input.size, untrained=manifest.untrained, tasks=names, report=report)
    wanted, here = source.get("sha256"), engines.source.record.get("sha256")
    if wanted != here:
        raise ArtifactError(
            f"{artifact} was made from {name} of digest {str(wanted)[:12]}; what is there now has {str(here)[:12]}: "
            "export again, or leave --published and --torch out"
        )
    return engines


def _intact(place: Path) -> bool:
    try:
        manifest = Manifest.read(place)
        manifest.verify_files(place)
    except ArtifactError:
        return False
    return True


def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
