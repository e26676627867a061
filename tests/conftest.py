"""Fixtures for all tests."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec
from emadeploy.contract.tasks import NYUV2_13

# A busy machine must fail no test, and each run tries the same examples; to look for more, HYPOTHESIS_PROFILE=explore.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("emadeploy", _PATIENT, max_examples=50, derandomize=True)
settings.register_profile("explore", _PATIENT, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "emadeploy"))


@pytest.fixture(scope="session")
def emadeploy_command() -> list[str]:
    """Return the argv of the installed command: the console script of this environment."""
    script = Path(sys.executable).with_name("emadeploy")
    return [str(script)] if script.exists() else [sys.executable, "-m", "emadeploy.cli.app"]


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """Return a model of three tasks at 64 x 96."""
    tasks = (TaskSpec("semseg", class_names=NYUV2_13), TaskSpec("depth"), TaskSpec("normals"))
    return ModelSpec("tiny", "emanet", tasks, InputSpec(64, 96))


@pytest.fixture
def make_artifact(tmp_path: Path, tiny_spec: ModelSpec) -> Callable[..., Path]:
    """Return a function that writes an artifact of ``tiny_spec``, one convolution, for onnxruntime, in milliseconds.

    With ``frame_size`` the graph takes uint8 frames and decodes; ``poison`` is added to every map ('nan' -> NaN);
    other keywords replace fields of the manifest.
    """

    def make(name: str = "artifact", *, frame_size: Any = None, poison: float = 0.0, **fields: Any) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        graph, outputs = _tiny_graph(frame_size, poison)
        (directory / "model.onnx").write_bytes(graph)
        image = TensorSpec("image", (1, 3, 64, 96), "float32", "BCHW")
        if frame_size is not None:
            image = TensorSpec("frame", (*frame_size, 3), "uint8", "HWC")
        values: dict[str, Any] = {
            "model": tiny_spec,
            "target": "onnxruntime-fp32",
            "precision": {"backbone": "fp32"},
            "engine_file": "model.onnx",
            "files": {"model.onnx": FileRecord.of(directory / "model.onnx")},
            "inputs": (image,),
            "outputs": outputs,
            "frame_size": frame_size,
            "versions": {"emadeploy": "0.1.0"},
        }
        Manifest(**{**values, **fields}).write(directory)
        return directory

    return make


def _tiny_graph(frame_size: Any, poison: float) -> tuple[bytes, tuple[TensorSpec, ...]]:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(7)
    constants = {
        "weight": rng.normal(size=(17, 3, 3, 3)).astype(np.float32),
        "bias": np.full(17, 0.1 + poison, np.float32),
        "sizes": np.array([13, 1, 3], np.int64),
        "axis0": np.array([0], np.int64),
        "axis01": np.array([0, 1], np.int64),
    }
    names = ("semseg", "depth", "normals")
    node = helper.make_node
    if frame_size is None:
        nodes = [
            node("Conv", ["image", "weight", "bias"], ["maps"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Split", ["maps", "sizes"], list(names), axis=1),
        ]
        given = TensorSpec("image", (1, 3, 64, 96), "float32", "BCHW")
        shapes = [(1, channels, 32, 48) for channels in (13, 1, 3)]
        outputs = tuple(TensorSpec(n, s, "float32", "BCHW") for n, s in zip(names, shapes, strict=True))
    else:
        nodes = [
            node("Cast", ["frame"], ["float"], to=onnx.TensorProto.FLOAT),
            node("Transpose", ["float"], ["planes"], perm=[2, 0, 1]),
            node("Unsqueeze", ["planes", "axis0"], ["image"]),
            node("Conv", ["image", "weight", "bias"], ["maps"], pads=[1, 1, 1, 1]),
            node("Split", ["maps", "sizes"], ["scores", "distance", "vectors"], axis=1),
            node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
            node("Squeeze", ["label", "axis0"], ["label_HW"]),
            node("Cast", ["label_HW"], ["semseg"], to=onnx.TensorProto.UINT8),
            node("Relu", ["distance"], ["positive"]),
            node("Squeeze", ["positive", "axis01"], ["depth"]),
            node("LpNormalization", ["vectors"], ["unit"], axis=1),
            node("Squeeze", ["unit", "axis0"], ["unit_CHW"]),
            node("Transpose", ["unit_CHW"], ["normals"], perm=[1, 2, 0]),
        ]
        given = TensorSpec("frame", (*frame_size, 3), "uint8", "HWC")
        outputs = (
            TensorSpec("semseg", frame_size, "uint8", "HW"),
            TensorSpec("depth", frame_size, "float32", "HW"),
            TensorSpec("normals", (*frame_size, 3), "float32", "HWC"),
        )

    def value(spec: TensorSpec) -> Any:
        kind = onnx.TensorProto.FLOAT if spec.dtype == "float32" else onnx.TensorProto.UINT8
        return helper.make_tensor_value_info(spec.name, kind, spec.shape)

    graph = helper.make_graph(
        nodes,
        "tiny",
        [value(given)],
        [value(output) for output in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(), outputs
