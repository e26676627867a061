"""Fixtures for export: a small network whose own answers, a little worsened, are the truth that judges it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
from shortened import SIZE, shortened, structured

from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.contract.spec import InputSpec
from emadeploy.data.sample import Sample
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.runtime import load


def silent(_: str) -> None:
    """Report to nobody."""


class Told:
    """Frames whose truth is what a network in float answers, with noise: its metrics are good, and never perfect."""

    def __init__(self, artifact: Path, count: int = 4, seed: int = 8) -> None:
        self.description, self.tasks = f"told:{seed}", ("semseg", "depth", "normals")
        self.specs = tuple(shortened().spec.tasks)
        rng = np.random.default_rng(seed)
        self.samples = []
        with load(artifact) as perception:
            for index, frame in enumerate(structured(count, SIZE, seed)):
                maps: dict[str, Any] = dict(perception(frame).maps)
                maps["depth"] = np.abs(maps["depth"]) * rng.uniform(0.9, 1.1, SIZE).astype(np.float32) + 1e-3
                self.samples.append(Sample(str(index), frame, maps))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def source() -> Source:
    return Source(shortened(), "a test", {"model": "tiny", "sha256": "0" * 64, "untrained": False})


@pytest.fixture(scope="session")
def frames() -> CalibrationFrames:
    return CalibrationFrames(structured(16, SIZE), InputSpec(*SIZE), "structured:0")


@pytest.fixture(scope="session")
def graph(source: Source, tmp_path_factory: pytest.TempPathFactory) -> OnnxGraph:
    folder: Path = tmp_path_factory.mktemp("graph")
    return export_graph(source, Wanted(low_precision=True), folder, report=silent, compared=1)


@pytest.fixture(scope="session")
def told(graph: OnnxGraph, tmp_path_factory: pytest.TempPathFactory) -> Told:
    output: Path = tmp_path_factory.mktemp("told") / "float"
    builder("onnxruntime")(graph, output, "onnxruntime-fp32")
    return Told(output)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def report(lines: list[str]) -> Callable[[str], None]:
    """Return what takes a report, line by line, into ``lines``."""
    return lines.append
