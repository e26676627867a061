"""The shipped network in float16 and in int8 with float16 beside it: how far its maps are from PyTorch's, per task."""

from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
import torch

from emadeploy.build.tensorrt import build
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half_choice import HARM, choose
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.calibrate.tensorrt import quantize, stand_in, typed
from emadeploy.evaluate.parity import raw_error
from emadeploy.export.deploy import published
from emadeploy.export.source import open_source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.runtime.backends.onnxruntime import session_options

pytestmark = pytest.mark.slow

#: Relative L2 error of raw maps that int8 may leave: measured 3.6, 1.5 and 2.9 % on bundled frames.
INT8 = {"semseg": 0.06, "depth": 0.03, "normals": 0.05}


def test_emanet_rooms_in_float16_and_in_int8_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime as ort

    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    source = open_source("emanet-rooms")
    graph = export_graph(source, Wanted(low_precision=True), tmp_path / "graph", report=lambda _: None)
    frames = CalibrationFrames.bundled(graph.model, count=16)
    images = list(islice(iter(frames), 2))
    network = published(source.network, form="exact")
    with torch.inference_mode():
        wanted = [{task: map_.numpy() for task, map_ in network.deploy(torch.from_numpy(i)).items()} for i in images]
    choice = choose(graph, frames)
    kept = {node for node in choice.keep if "spatial_att" in node}
    assert kept == set(choice.keep), "only CTAL has anything that float16 cannot hold"
    quantised = quantize(graph, frames, load_recipe("trt-int8").resolved(), tmp_path / "quantised")
    for name, record, bounds in (
        ("trt-fp16", graph, dict.fromkeys(graph.model.task_names, 2 * HARM)),
        ("trt-int8", quantised, INT8),
    ):
        half = typed(record, tmp_path / name, choice)
        assert build(half, tmp_path / f"{name}-artifact", name).rest == "fp16"
        runs = onnx.load(stand_in(half, tmp_path / f"{name}-runs").path).SerializeToString()
        options = session_options(1)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = ort.InferenceSession(runs, options, providers=["CPUExecutionProvider"])
        tasks = list(graph.model.task_names)
        found = [dict(zip(tasks, session.run(tasks, {"image": image}), strict=True)) for image in images]
        errors = {
            task: np.mean([raw_error(a[task], b[task]) for a, b in zip(found, wanted, strict=True)]) for task in tasks
        }
        assert all(1e-4 < errors[task] <= bounds[task] for task in tasks), (name, errors)
