"""Does the graph compute what the checkpoint computes? Run it in ONNX Runtime beside the published form in PyTorch.

Shape suffixes: C channels, H x W rows and columns of the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import ExportError, first_line
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import Float32, UInt8, preprocess, resize_bilinear
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.parity import Parity, raw_error
from emadeploy.export.deploy import Deployed, published
from emadeploy.nets.network import Network

Maps = Mapping[str, "np.ndarray[Any, Any]"]

FRAMES = 2
RAW_TOLERANCE = 1e-4
"""Largest relative L2 error of a task's raw map. Graph and reference sum the same products in another order, each in
float32, and differ by 1e-6 to 1e-5; a wrong weight, or a map moved by one pixel, makes 1e-2 and more."""
DECODED_TOLERANCE = 1e-3
"""The same where the graph decodes and raw maps stay inside: relative L2 error, or the share of pixels with another
label. Decoding is not smooth (argmax, clamping, unit length), so a few pixels on an edge may go either way."""

_LARGEST_AFFINITIES = 1 << 30
"""Bytes; the published form is not run where it holds more. PyTorch needs about three times that on its way."""


def with_parity(
    graph: OnnxGraph,
    network: Network,
    frames: int = FRAMES,
    approximation: Deployed | None = None,
    tolerance: float | None = None,
) -> OnnxGraph:
    """Return ``graph`` with its agreement with ``network`` per task, measured on made frames.

    Per task: the largest 'raw_error' (or 'decoded_error', where the graph decodes), and what `evaluate.parity` says of
    the decoded maps. A graph that approximates the network on purpose must still be the graph of ``approximation``,
    image in, raw maps out. ``tolerance`` takes the place of the usual one. Raises ExportError where a task is further
    off than that, or the graph does not run.
    """
    spec, decodes = graph.model, graph.frame_size is not None
    reference, described = _reference(network)
    session = _session(graph.path)
    tally = Parity(spec.tasks)
    errors, rounding = dict.fromkeys(spec.task_names, 0.0), dict.fromkeys(spec.task_names, 0.0)
    for index in range(frames):
        frame_HW3 = structured_frame(graph.frame_size or spec.input.size, seed=index)
        image_13HW = preprocess(frame_HW3, spec.input)
        answers = session.run(list(errors), {graph.inputs[0].name: frame_HW3 if decodes else image_13HW})
        maps = raw = dict(zip(errors, answers, strict=True))
        with torch.inference_mode():
            wanted_raw = {task: map_.numpy() for task, map_ in reference.deploy(torch.from_numpy(image_13HW)).items()}
        wanted_maps = _decoded(wanted_raw, spec, frame_HW3.shape[:2])
        if not decodes:
            maps = _decoded(raw, spec, frame_HW3.shape[:2])
        tally.update(maps, wanted_maps)
        _add_worst(errors, maps if decodes else raw, wanted_maps if decodes else wanted_raw, decodes)
        if approximation is not None:
            with torch.inference_mode():
                answers = [map_.numpy() for map_ in approximation(torch.from_numpy(image_13HW))]
            wanted_raw = dict(zip(errors, answers, strict=True))
            wanted_maps = _decoded(wanted_raw, spec, frame_HW3.shape[:2])
            _add_worst(rounding, maps if decodes else raw, wanted_maps if decodes else wanted_raw, decodes)
    name, usual = ("decoded_error", DECODED_TOLERANCE) if decodes else ("raw_error", RAW_TOLERANCE)
    tolerance = usual if tolerance is None else tolerance
    if approximation is None:
        _check(errors, tolerance, described)
    else:
        _check(rounding, tolerance, f"PyTorch {torch.__version__}, the same approximation")
    held = f"tolerance {tolerance:g}" if approximation is None else "an approximation, as asked"
    parity = {task: {name: errors[task], **values} for task, values in tally.compute().items()}
    return replace(graph, parity=parity, reference=f"{described}; {frames} made frames; {held}")


def _add_worst(errors: dict[str, float], found: Maps, wanted: Maps, decoded: bool) -> None:
    for task in errors:
        error = _map_error(found[task], wanted[task]) if decoded else raw_error(found[task], wanted[task])
        errors[task] = max(errors[task], error)


def structured_frame(size: tuple[int, int], seed: int) -> UInt8:
    """Return a made frame (H, W, 3), uint8: smooth light, flat boxes with sharp edges, and fine noise over all."""
    random = np.random.default_rng(seed)
    H, W = size
    frame_3HW: Float32 = resize_bilinear(random.uniform(30, 220, (3, 3, 4)), size)
    for _ in range(12):
        top, left = random.integers(0, H), random.integers(0, W)
        bottom, right = top + random.integers(1, H // 2 + 2), left + random.integers(1, W // 2 + 2)
        frame_3HW[:, top:bottom, left:right] = random.uniform(0, 255, (3, 1, 1))
    frame_3HW += random.normal(0, 6, frame_3HW.shape)
    return np.ascontiguousarray(np.moveaxis(frame_3HW.clip(0, 255).astype(np.uint8), 0, 2))


def _reference(network: Network) -> tuple[Network, str]:
    """Return the network to compare with, and what it is: as published, where its affinities fit into memory."""
    spec = network.spec
    pixels = spec.input.height * spec.input.width // spec.ctal.stride**2
    needed = (len(spec.tasks) + 1) * pixels**2 * 4
    if needed <= _LARGEST_AFFINITIES:
        return published(network), f"PyTorch {torch.__version__}, CTAL as published"
    described = f"PyTorch {torch.__version__}, exact CTAL (as published it needs {needed / 1e9:.0f} GB)"
    return published(network, form="exact"), described


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they arrive as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        version = onnxruntime.__version__
        raise ExportError(f"onnxruntime {version} cannot load the graph: {first_line(error)}") from error


def _decoded(raw: Maps, spec: ModelSpec, size: tuple[int, int]) -> dict[str, Any]:
    return {task.name: decode(raw[task.name], task, size) for task in spec.tasks}


def _map_error(map_HW: Any, wanted_HW: Any) -> float:
    if map_HW.dtype == np.uint8:
        return float(np.mean(map_HW != wanted_HW)) if map_HW.shape == wanted_HW.shape else float("inf")
    return raw_error(map_HW, wanted_HW)


def _check(errors: Mapping[str, float], tolerance: float, described: str) -> None:
    # Written so that NaN fails too.
    wrong = [f"{task} by {error:.2g}" for task, error in errors.items() if not error <= tolerance]
    if wrong:
        raise ExportError(
            f"the graph does not compute what the checkpoint computes: {', '.join(wrong)} (relative error; "
            f"at most {tolerance:g} is rounding; reference: {described}). Please report this with the checkpoint's spec"
        )
