"""TensorRT's portable artifact: what it says of itself, and what each rule of TensorRT refuses in a graph."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import PRODUCT, tiny_graph
from onnx import TensorProto, helper, numpy_helper

from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt import build
from emadeploy.build.tensorrt_rules import RULES, check_rules
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import Manifest

CALIBRATION = {"recipe": "by hand", "rest": "fp32"}
Change = Callable[["Sketch"], None]


class Sketch:
    """Image -> Conv -> keys and values -> a product of CTAL -> Conv -> Resize, as TensorRT takes it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            "scale": np.array(0.1, np.float32),
            "zero": np.array(0, np.int8),
            "weight": rng.integers(-127, 127, (4, 3, 1, 1)).astype(np.int8),
            "weight_scale": np.full(4, 0.01, np.float32),
            "weight_zero": np.zeros(4, np.int8),
            "flat": np.array([4, -1], np.int64),
            "square": np.array([1, 4, 2, 2], np.int64),
            "weight2": rng.normal(size=(1, 4, 1, 1)).astype(np.float32),
            "scales": np.array([1, 1, 2, 2], np.float32),
        }
        self.nodes = [
            *pair("image", "image_q"),
            helper.make_node(
                "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], name="backbone/weight", axis=0
            ),
            helper.make_node("Conv", ["image_q", "w"], ["a"], name="backbone.conv/Conv"),
            helper.make_node("Reshape", ["a", "flat"], ["values"], name="ctal/Reshape"),
            helper.make_node("Transpose", ["values"], ["keys"], name="ctal/Transpose", perm=[1, 0]),
            *pair("values", "values_q"),
            *pair("keys", "keys_q"),
            helper.make_node("MatMul", ["values_q", "keys_q"], ["product"], name=PRODUCT),
            helper.make_node("Slice", ["product", "from", "to"], ["part"], name="ctal/Slice"),
            helper.make_node("Reshape", ["part", "square"], ["b"], name="ctal/Reshape_1"),
            helper.make_node("Conv", ["b", "weight2"], ["c"], name="heads.depth/Conv"),
            helper.make_node("Resize", ["c", "", "scales"], ["depth"], name="heads.depth/Resize", mode="linear"),
        ]
        self.constants |= {"from": np.array([0, 0], np.int64), "to": np.array([4, 4], np.int64)}
        self.extents: Sequence[Any] = (1, 3, 4, 4)
        self.answers: dict[str, tuple[int, Sequence[int]]] = {"depth": (TensorProto.FLOAT, (1, 1, 4, 4))}
        self.opset = 18

    def node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.extents)],
            [helper.make_tensor_value_info(name, type_, shape) for name, (type_, shape) in self.answers.items()],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.x", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def pair(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{result}8"], name=f"{source}/Quantise"),
        helper.make_node("DequantizeLinear", [f"{result}8", "scale", "zero"], [result], name=f"{source}/Dequantise"),
    ]


def quantised_bias(sketch: Sketch) -> None:
    sketch.constants |= {"bias": np.zeros(4, np.int32), "bias_zero": np.zeros(4, np.int32)}
    made = helper.make_node("DequantizeLinear", ["bias", "weight_scale", "bias_zero"], ["bias_f"], name="bias", axis=0)
    sketch.nodes.insert(0, made)
    sketch.node("backbone.conv/Conv").input.append("bias_f")


def unsigned_bytes(sketch: Sketch) -> None:
    sketch.constants["zero"] = np.array(0, np.uint8)


def no_zero_point(sketch: Sketch) -> None:
    for node in pair("keys", "keys_q"):
        del sketch.node(node.name).input[2]


def zero_point(sketch: Sketch) -> None:
    sketch.constants["zero"] = np.array(3, np.int8)


def pair_before_resize(sketch: Sketch) -> None:
    sketch.nodes[-1:-1] = pair("c", "c_q")
    sketch.nodes[-1].input[0] = "c_q"


def dynamic_extent(sketch: Sketch) -> None:
    sketch.extents = ("batch", 3, 4, 4)


def another_axis(sketch: Sketch) -> None:
    made = sketch.node("backbone/weight")
    made.attribute[0].i = 1
    sketch.constants |= {"weight_scale": np.ones(3, np.float32), "weight_zero": np.zeros(3, np.int8)}


def default_axis(sketch: Sketch) -> None:
    another_axis(sketch)
    del sketch.node("backbone/weight").attribute[:]


def transposed(sketch: Sketch) -> None:
    head = sketch.node("heads.depth/Conv")
    head.op_type = "ConvTranspose"
    sketch.constants["weight2"] = sketch.constants["weight2"].transpose(1, 0, 2, 3).copy()
    at = sketch.nodes.index(head)
    sketch.nodes[at:at] = pair("b", "b_q")
    head.input[0] = "b_q"


def bare_product(sketch: Sketch) -> None:
    sketch.node(PRODUCT).input[1] = "keys"


def unknown_operator(sketch: Sketch) -> None:
    sketch.node("heads.depth/Resize").input[0] = "shaped"
    sketch.nodes.insert(-1, helper.make_node("Hardmax", ["c"], ["shaped"], name="heads.depth/Hardmax"))


def foreign_operator(sketch: Sketch) -> None:
    sketch.node("heads.depth/Resize").input[0] = "shaped"
    sketch.nodes.insert(-1, helper.make_node("FusedConv", ["c"], ["shaped"], name="heads.depth/F", domain="com.x"))


def half_weight(sketch: Sketch) -> None:
    sketch.constants["weight2"] = sketch.constants["weight2"].astype(np.float16)


def half_scale(sketch: Sketch) -> None:
    sketch.opset = 19
    sketch.constants["half"] = np.array(0.1, np.float16)
    sketch.node("values/Quantise").input[1] = "half"


def float64_inside(sketch: Sketch) -> None:
    sketch.node("heads.depth/Resize").input[0] = "narrow"
    sketch.nodes[-1:-1] = [
        helper.make_node("Cast", ["c"], ["wide"], name="heads.depth/Cast", to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["wide"], ["narrow"], name="heads.depth/Cast_1", to=TensorProto.FLOAT),
    ]


def int64_answer(sketch: Sketch) -> None:
    sketch.nodes.append(helper.make_node("ArgMax", ["depth"], ["label"], name="heads.depth/ArgMax", axis=1))
    sketch.answers["label"] = (TensorProto.INT64, (1, 1, 4, 4))


def bytes_that_move(sketch: Sketch) -> None:
    sketch.nodes += [
        helper.make_node("Cast", ["depth"], ["byte"], name="heads.depth/Cast", to=TensorProto.UINT8),
        helper.make_node("Transpose", ["byte"], ["label"], name="heads.depth/Transpose", perm=[0, 2, 3, 1]),
    ]
    sketch.answers["label"] = (TensorProto.UINT8, (1, 4, 4, 1))


VIOLATIONS: dict[Change, tuple[str, str]] = {
    quantised_bias: ("bias", "an int32 bias"),
    unsigned_bytes: ("image/Quantise", "integers of uint8"),
    no_zero_point: ("keys/Quantise", "no zero point"),
    zero_point: ("image/Quantise", "a zero point that is not 0"),
    pair_before_resize: ("heads.depth/Resize", "Q/DQ right in front of a Resize"),
    dynamic_extent: ("image", "tensor 'image' has extents"),
    another_axis: ("backbone.conv/Conv", "scales of its weight along axis 1"),
    default_axis: ("backbone.conv/Conv", "scales of its weight along axis 1"),
    transposed: ("heads.depth/Conv", "Q/DQ on a ConvTranspose"),
    bare_product: (PRODUCT, "no Q/DQ on its input 'keys'"),
    unknown_operator: ("heads.depth/Hardmax", "TensorRT's parser has no Hardmax"),
    foreign_operator: ("heads.depth/F", "com.x.FusedConv is no operator of ONNX"),
    half_weight: ("heads.depth/Conv", r"it reads float32 \('b'\) and float16 \('weight2'\)"),
    half_scale: ("values/Quantise", "its scale is float16 and its float side 'values' float32"),
    float64_inside: ("heads.depth/Cast", "tensor 'wide' is float64"),
    int64_answer: ("heads.depth/ArgMax", "'label', which goes in or comes out, is int64"),
    bytes_that_move: ("heads.depth/Transpose", "tensor 'byte' is uint8"),
}


def per_tensor(sketch: Sketch) -> None:
    sketch.constants |= {"weight_scale": np.array(0.1, np.float32), "weight_zero": np.array(0, np.int8)}
    del sketch.node("backbone/weight").attribute[:]


def axis_from_the_end(sketch: Sketch) -> None:
    sketch.node("backbone/weight").attribute[0].i = -4


def transposed_in_float(sketch: Sketch) -> None:
    transposed(sketch)
    sketch.node("heads.depth/Conv").input[0] = "b"


def pair_behind_resize(sketch: Sketch) -> None:
    sketch.nodes[-1].output[0] = "resized"
    sketch.nodes += pair("resized", "depth")


def half_in_its_own_region(sketch: Sketch) -> None:
    """Float16 from the keys on, with their scale, and a Cast where it ends."""
    sketch.opset = 19
    sketch.constants["half"] = np.array(0.1, np.float16)
    for node in ("values/Dequantise", "keys/Dequantise"):
        sketch.node(node).input[1] = "half"
    half_weight(sketch)
    sketch.node("heads.depth/Resize").input[0] = "wide"
    cast = helper.make_node("Cast", ["c"], ["wide"], name="heads.depth/Cast", to=TensorProto.FLOAT)
    sketch.nodes.insert(-1, cast)


def label_in_bytes(sketch: Sketch) -> None:
    """Int64 inside, a byte at the border."""
    sketch.nodes += [
        helper.make_node("ArgMax", ["depth"], ["index"], name="heads.depth/ArgMax", axis=1),
        helper.make_node("Cast", ["index"], ["label"], name="heads.depth/Cast", to=TensorProto.UINT8),
    ]
    sketch.answers["label"] = (TensorProto.UINT8, (1, 1, 4, 4))


CONTROLS: list[Change] = [
    per_tensor,
    axis_from_the_end,
    transposed_in_float,
    pair_behind_resize,
    half_in_its_own_region,
    label_in_bytes,
]


def changed(change: Change) -> onnx.ModelProto:
    sketch = Sketch()
    change(sketch)
    return sketch.model()


def test_a_graph_within_the_rules_passes() -> None:
    check_rules(Sketch().model())


@pytest.mark.parametrize("change", CONTROLS)
def test_what_is_near_a_violation_and_none_passes(change: Change) -> None:
    check_rules(changed(change))


@pytest.mark.parametrize("change", VIOLATIONS)
def test_each_violation_is_refused_by_the_name_of_its_node(change: Change) -> None:
    node, message = VIOLATIONS[change]
    with pytest.raises(BuildError, match=f"^node '{node}': {message}"):
        check_rules(changed(change))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_needed(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tuple(other for other in RULES if other is not rule)
    monkeypatch.setattr("emadeploy.build.tensorrt_rules.RULES", left)
    passed = []
    for change in VIOLATIONS:
        try:
            check_rules(changed(change))
        except BuildError:
            continue
        passed.append(change)
    assert passed


def test_several_violations_are_counted() -> None:
    sketch = Sketch()
    bare_product(sketch)
    zero_point(sketch)
    with pytest.raises(BuildError, match=r"\(6 more like it, or that break other rules\)"):
        check_rules(sketch.model())


def test_what_is_no_graph_at_all_is_refused() -> None:
    model = Sketch().model()
    model.opset_import.pop()
    model.opset_import.pop()
    with pytest.raises(BuildError, match="not a graph of ONNX"):
        check_rules(model)


def test_a_product_of_ctal_that_is_kept_in_float_needs_no_pairs() -> None:
    check_rules(changed(bare_product), kept=[PRODUCT])


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    onnx.save(Sketch().model(), graph.path)
    graph.write()
    return graph


def test_the_artifact_is_the_graph_and_claims_no_precision(graph: OnnxGraph, tmp_path: Path) -> None:
    output = tmp_path / "out"
    manifest = build(graph, output, "trt-int8")
    assert Manifest.read(output) == manifest
    manifest.verify_files(output)
    assert manifest.files.keys() == {"model.onnx"} == {manifest.engine_file}
    assert (output / "model.onnx").read_bytes() == graph.path.read_bytes()
    assert not manifest.compiled
    assert (manifest.precision, manifest.audit) == ({}, None)
    assert manifest.asked == {"backbone": "int8", "ctal": "int8", "heads.depth": "int8"}
    assert (manifest.rest, manifest.calibration) == ("fp32", CALIBRATION)


def in_float(sketch: Sketch) -> None:
    sketch.constants["w"] = np.ones((4, 3, 1, 1), np.float32)
    for node in sketch.nodes:
        node.input[:] = [name.removesuffix("_q") for name in node.input]
    sketch.nodes = [node for node in sketch.nodes if not node.op_type.endswith(("QuantizeLinear", "DequantizeLinear"))]


def in_half(sketch: Sketch) -> None:
    in_float(sketch)
    half_weight(sketch)
    sketch.node("heads.depth/Conv").input[0] = "b16"
    at = sketch.nodes.index(sketch.node("heads.depth/Conv"))
    sketch.nodes.insert(at, helper.make_node("Cast", ["b"], ["b16"], name="heads.depth/C", to=TensorProto.FLOAT16))
    sketch.node("heads.depth/Resize").input[0] = "wide"
    cast = helper.make_node("Cast", ["c"], ["wide"], name="heads.depth/Cast", to=TensorProto.FLOAT)
    sketch.nodes.insert(-1, cast)


@pytest.mark.parametrize(("target", "change"), [("trt-fp32", in_float), ("trt-rtx-fp16", in_half)])
def test_a_graph_in_float_says_its_precision(graph: OnnxGraph, tmp_path: Path, target: str, change: Change) -> None:
    onnx.save(changed(change), graph.path)
    manifest = build(replace(graph, calibration=None), tmp_path / "out", target)
    precision = target.rpartition("-")[2]
    assert (manifest.rest, set(manifest.asked.values()), manifest.compiled) == (precision, {precision}, False)


def test_for_rtx_the_manifest_says_what_its_int8_is_documented_for(graph: OnnxGraph, tmp_path: Path) -> None:
    notes = build(graph, tmp_path / "out", "trt-rtx-int8").graph["notes"]
    assert any("for products that quantise their weights alone" in note for note in notes)
    assert "notes" not in build(graph, tmp_path / "other", "trt-int8").graph


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        ("trt-fp16", in_float, "is all float32, and fp16 with the rest in fp16 was asked for"),
        ("trt-fp32", in_half, "holds float16, and fp32 with the rest in fp32 was asked for"),
        ("trt-fp32", per_tensor, "holds Q/DQ, and fp32 was asked for"),
        ("trt-int8", half_in_its_own_region, "holds float16, and int8 with the rest in fp32 was asked for"),
    ],
)
def test_a_graph_typed_otherwise_is_refused(
    graph: OnnxGraph, tmp_path: Path, target: str, change: Change, message: str
) -> None:
    onnx.save(changed(change), graph.path)
    with pytest.raises(BuildError, match=message):
        build(graph, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


def test_targets_of_other_engines_are_refused(graph: OnnxGraph, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="target 'openvino-int8' is for openvino; this makes graphs for tensorrt and"):
        build(graph, tmp_path / "out", "openvino-int8")


def test_a_graph_without_calibration_is_refused(graph: OnnxGraph, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="this graph is not quantised: calibrate it first"):
        build(replace(graph, calibration=None), tmp_path / "out", "trt-int8")


def test_a_violation_names_the_file_and_leaves_nothing(graph: OnnxGraph, tmp_path: Path) -> None:
    onnx.save(changed(bare_product), graph.path)
    with pytest.raises(BuildError, match=rf"model\.onnx is no graph for TensorRT: node '{PRODUCT}': no Q/DQ"):
        build(graph, tmp_path / "out", "trt-int8")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]
    kept = replace(graph, calibration={**CALIBRATION, "kept": [PRODUCT]})
    assert build(kept, tmp_path / "out", "trt-int8").target == "trt-int8"
