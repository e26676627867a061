"""Multiply-accumulates per node, against sums done by hand."""

import numpy as np
import pytest

pytest.importorskip("onnx")
from emadeploy.calibrate.work import work_of


def test_every_kind_of_compute_node(build):
    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    constants = {
        "w": ones(8, 3, 3, 3),
        "grouped": ones(8, 2, 1, 1),
        "flat": np.array([8, -1], np.int64),
        "m": ones(1536, 5),
        "g": ones(8, 7),
    }
    nodes = [
        ("Conv", "a/Conv", ["image", "w"], ["a"], {"strides": [2, 2], "pads": [1] * 4}),
        ("Conv", "b/Conv", ["a", "grouped"], ["b"], {"group": 4}),
        ("Reshape", "r/Reshape", ["b", "flat"], ["r"], {}),
        ("MatMul", "m/MatMul", ["r", "m"], ["p"], {}),
        ("Gemm", "g/Gemm", ["p", "g"], ["q"], {"transA": 1}),
    ]
    assert work_of(build(nodes, constants, {"q": (5, 7)})) == {
        "a/Conv": 8 * 32 * 48 * 27,
        "b/Conv": 8 * 32 * 48 * 2,
        "m/MatMul": 8 * 5 * 1536,
        "g/Gemm": 5 * 7 * 8,
    }


def test_all_compute_nodes_of_a_network_count_in_their_order(emanet):
    import onnx

    model = onnx.load(emanet.path)
    work = work_of(model)
    assert list(work) == [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert min(work.values()) > 0
