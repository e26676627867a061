"""Which engine is built, tried out, opened and closed, and when. Every engine is a fake that keeps a log."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emadeploy.cli.exporting import int8 as int8_module
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.data.sample import Sample

pytest.importorskip("onnx")

PLAIN: frozenset[str] = frozenset()
KEPT, OTHER = frozenset({"heads.depth.0.conv1/Conv"}), frozenset({"backbone.conv1/Conv"})
SPEC = ModelSpec("made", "emanet", (TaskSpec("depth"),), InputSpec(32, 32))


@dataclass
class Engine:
    """An open engine: where its file was, and the nodes that were kept in what was there when it was opened."""

    log: list[str]
    name: str
    keep: frozenset[str]

    def __call__(self, frame: Any) -> SimpleNamespace:
        return SimpleNamespace(maps={"depth": np.full((32, 32), 2.0 if self.keep else 3.0, np.float32)})

    def close(self) -> None:
        self.log.append(f"close {self.name}")


@dataclass
class Room:
    """A wall two metres away."""

    description: str = "wall"
    tasks: tuple[str, ...] = ("depth",)
    specs: tuple[TaskSpec, ...] = (TaskSpec("depth"),)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        if index:
            raise IndexError(index)
        return Sample("0", np.zeros((32, 32, 3), np.uint8), {"depth": np.full((32, 32), 2.0, np.float32)})


@dataclass
class Made:
    """What was done, in order, and what lies where: folder -> the nodes kept in the engine there."""

    log: list[str] = field(default_factory=list)
    there: dict[str, frozenset[str]] = field(default_factory=dict)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Put fakes in the place of calibration, building and loading."""
    made = Made()

    def quantizer(engine: str) -> Callable[..., Any]:
        def quantize(graph: Any, frames: Any, recipe: Any, folder: Path, *, keep: Any, progress: Any) -> Any:
            made.log.append(f"quantise {said(keep)}")
            return SimpleNamespace(keep=keep)

        return quantize

    def builder(engine: str) -> Callable[..., Any]:
        def build(graph: Any, output: Path, target: str) -> Any:
            made.log.append(f"build {output.name} {target}")
            made.there[output.name] = graph.keep
            return SimpleNamespace(compiled=engine != "tensorrt", keep=graph.keep)

        return build

    def load(folder: Path) -> Engine:
        made.log.append(f"load {folder.name}")
        return Engine(made.log, folder.name, made.there[folder.name])

    def open_trial(graph: Any, target: str) -> Engine:
        made.log.append("try")
        return Engine(made.log, "trial", graph.keep)

    def typed(graph: Any, folder: Path, choice: Any) -> Any:
        made.log.append("type")
        return graph

    def stand_in(graph: Any, output: Path) -> None:
        builder("onnxruntime")(graph, output, "onnxruntime-fp32")

    fakes = {"quantizer": quantizer, "builder": builder, "load": load, "open_trial": open_trial}
    fakes |= {"typed": typed, "stand_in": stand_in}
    for name, fake in fakes.items():
        monkeypatch.setattr(int8_module, name, fake)
    return made


def said(keep: frozenset[str]) -> str:
    return " ".join(sorted(keep)) or "all"


def int8_of(target: str, folder: Path) -> Int8:
    frames: Any = type("Frames", (), {"description": "frames", "digest": "0" * 64, "__len__": lambda self: 16})()
    graph: Any = SimpleNamespace(model=SPEC, path=folder / "graph", learned=None)
    return Int8(graph, frames, SimpleNamespace(rest="fp32"), target, folder, lambda _: None)  # type: ignore[arg-type]


def error(int8: Int8, keep: frozenset[str]) -> float:
    return int8.measure(keep, Room())["depth"]["abs"]


def test_plain_int8_is_built_and_measured_as_it_was_built(made, tmp_path):
    int8 = int8_of("openvino-int8", tmp_path)
    assert error(int8, PLAIN) == 1.0
    assert made.log == ["quantise all", "build artifact openvino-int8", "load artifact"]
    assert int8.judged == int8.artifact == tmp_path / "artifact"


def test_what_is_open_is_measured_again_as_it_is(made, tmp_path):
    int8 = int8_of("openvino-int8", tmp_path)
    for _ in range(3):
        error(int8, PLAIN)
    assert len(made.log) == 3


def test_other_layers_are_tried_out_and_the_artifact_stays(made, tmp_path):
    int8 = int8_of("openvino-int8", tmp_path)
    error(int8, PLAIN)
    made.log.clear()
    assert error(int8, KEPT) == 0.0
    assert made.log == ["close artifact", f"quantise {said(KEPT)}", "try"]
    assert made.there == {"artifact": PLAIN}
    made.log.clear()
    error(int8, OTHER)
    # What is open is closed before its files are written anew.
    assert made.log == ["close trial", f"quantise {said(OTHER)}", "try"]
    made.log.clear()
    # The artifact made last is still there: opened again, not made again.
    error(int8, PLAIN)
    assert made.log == ["close trial", "load artifact"]


def test_what_was_tried_out_is_judged_as_built_once_it_is_built(made, tmp_path):
    int8 = int8_of("openvino-int8", tmp_path)
    error(int8, PLAIN)
    error(int8, KEPT)
    made.log.clear()
    manifest = int8.build(KEPT)
    assert manifest.keep == KEPT
    assert made.log == ["close trial", f"quantise {said(KEPT)}", "build artifact openvino-int8"]
    assert int8.build(KEPT) is manifest
    error(int8, KEPT)
    assert made.log[3:] == ["load artifact"]
    assert made.there == {"artifact": KEPT}


def test_an_engine_that_cannot_be_tried_out_is_built_each_time(made, tmp_path):
    int8 = int8_of("onnxruntime-int8", tmp_path)
    error(int8, PLAIN)
    error(int8, KEPT)
    assert made.log[3:] == [
        "close artifact",
        f"quantise {said(KEPT)}",
        "build artifact onnxruntime-int8",
        "load artifact",
    ]


def test_what_only_its_device_compiles_is_judged_by_its_stand_in(made, tmp_path):
    int8 = int8_of("trt-int8", tmp_path)
    error(int8, KEPT)
    assert made.log == [
        f"quantise {said(KEPT)}",
        "type",
        "build artifact trt-int8",
        "build stand-in onnxruntime-fp32",
        "load stand-in",
    ]
    assert int8.judged == tmp_path / "stand-in"
    assert made.there == {"artifact": KEPT, "stand-in": KEPT}


def test_closing_frees_the_engine_and_forgets_nothing_that_was_made(made, tmp_path):
    int8 = int8_of("openvino-int8", tmp_path)
    int8.close()  # nothing is open yet
    error(int8, PLAIN)
    made.log.clear()
    int8.close()
    int8.close()
    assert made.log == ["close artifact"]
    error(int8, PLAIN)
    assert made.log == ["close artifact", "load artifact"]


def test_nothing_is_judged_before_it_is_built(made, tmp_path):
    with pytest.raises(AssertionError, match="judged before built"):
        _ = int8_of("openvino-int8", tmp_path).judged
