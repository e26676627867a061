"""Graphs for engines that only their device compiles: every tensor typed, and judged by a stand-in that runs here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate import tensorrt
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half_choice import HARM, Choice, choose
from emadeploy.cli.progress import progress
from emadeploy.export.parity import with_parity
from emadeploy.export.source import Source
from emadeploy.runtime.machine import sums_bytes

Report = Callable[[str], None]

#: Engines whose artifacts are graphs.
PORTABLE = ("tensorrt", "tensorrt_rtx")
MEASURED_IN = tensorrt.MEASURED_IN
typed = tensorrt.typed
#: Largest error of a task's map in float16 on made frames, which are rougher than those that the choice was made on.
TOLERANCE = 2 * HARM


def choose_half(graph: OnnxGraph, frames: CalibrationFrames, report: Report) -> Choice:
    """Return what stays in float32 beside float16, and report it. Raises CalibrationError."""
    with progress("choosing what float16 may hold") as bar:
        choice = choose(graph, frames, bar)
    errors = ", ".join(f"{task} {100 * error:.2g} %" for task, error in choice.errors.items())
    report(f"float16: {len(choice.keep)} nodes stay in float32; raw maps are off by {errors}")
    return choice


def stand_in(graph: OnnxGraph, output: Path) -> None:
    """Make the artifact of ONNX Runtime that computes what the typed ``graph`` says, at ``output``."""
    rounded = tensorrt.stand_in(graph, output.with_name(f"{output.name}-graph"))
    manifest = builder("onnxruntime")(rounded, output, "onnxruntime-fp32")
    if sums_bytes():
        # Of a graph for float32, the runtime asks ONNX Runtime to multiply in float whatever its Q/DQ says.
        replace(manifest, target="onnxruntime-int8").write(output)


def in_float(graph: OnnxGraph, folder: Path) -> OnnxGraph:
    """Return ``graph`` for a target in float32: as it is, but where TensorRT would refuse it."""
    return typed(graph, folder / "typed", None)


def in_half(source: Source, graph: OnnxGraph, frames: CalibrationFrames, folder: Path, report: Report) -> OnnxGraph:
    """Return ``graph`` for a target in float16, with its agreement with PyTorch as float16 rounds.

    Raises CalibrationError where float16 harms a task on the ``frames``, ExportError where it does on made ones.
    """
    half = typed(graph, folder / "typed", choose_half(graph, frames, report))
    runs = tensorrt.stand_in(half, folder / "stand-in")
    # A basis is off by itself; what float16 adds to it was bounded when it was chosen.
    judged = with_parity(runs, source.network, tolerance=math.inf if graph.basis else TOLERANCE)
    reference = f"{judged.reference}; run in {MEASURED_IN['fp16']}"
    return replace(half, parity=judged.parity, reference=reference)
