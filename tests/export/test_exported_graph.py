"""What the exported graphs are made of. The published graph is the control: it has what the exact one must not."""

from collections import Counter
from collections.abc import Callable

import onnx
import onnx.shape_inference
import pytest

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.branches import OTHER, branch_of
from emadeploy.export.stage import Wanted
from emadeploy.nets.network import Network

Exported = tuple[Network, OnnxGraph, onnx.ModelProto]
TASKS = 2
PIXELS = 40 * 40  # of the map at 1/4 of 160 x 160


def operations(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def largest_tensor(model: onnx.ModelProto) -> int:
    """Return the number of elements of the largest tensor, by shape inference, which must know every one."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        size = 1
        for extent in value.type.tensor_type.shape.dim:
            assert extent.dim_value > 0, f"{value.name} has an extent that is not fixed"
            size *= extent.dim_value
        sizes[value.name] = size
    missing = {name for node in graph.node for name in node.output} - set(sizes)
    assert not missing
    return max(sizes.values())


def test_exact_holds_no_affinities(exact: Exported, affinity: Exported) -> None:
    assert largest_tensor(exact[2]) < PIXELS**2
    assert largest_tensor(affinity[2]) == TASKS * PIXELS**2


def test_exact_products(exact: Exported, affinity: Exported) -> None:
    products = [node.name for node in exact[2].graph.node if node.op_type == "MatMul"]
    attention = "affinity_learning_module.spatial_att"
    assert f"{attention}.gather.product/MatMul" in products
    assert [name for name in products if ".spread." in name] == [
        f"{attention}.spread.{index}.product/MatMul" for index in range(9)
    ]
    assert operations(affinity[2])["MatMul"] == 2


def test_layers_that_deployment_has_no_use_for(exact: Exported, affinity: Exported) -> None:
    for model in (exact[2], affinity[2]):
        assert "BatchNormalization" not in operations(model)
        assert not [w.name for w in model.graph.initializer if "initial_task_prediction_heads.conv_out" in w.name]
    assert operations(exact[2])["ConvTranspose"] == 0
    assert operations(exact[2])["DepthToSpace"] == TASKS
    assert operations(affinity[2])["ConvTranspose"] == TASKS
    grouped = [a.i for n in affinity[2].graph.node for a in n.attribute if n.op_type == "Conv" and a.name == "group"]
    assert PIXELS in grouped
    assert exact[1].rewrites
    assert affinity[1].rewrites == ()


def test_every_weight_and_node_has_its_use_and_its_branch(exact: Exported) -> None:
    graph = exact[2].graph
    used = {name for node in graph.node for name in node.input}
    assert {weight.name for weight in graph.initializer} <= used
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    branches = {branch_of(name) for name in names}
    assert OTHER not in branches
    assert branches == set(exact[1].branches)
    heads = {f"{part}.{task}" for part in ("initial", "heads") for task in ("semseg", "depth")}
    assert branches == {"backbone", "ctal"} | heads


def test_names_lead_back_to_the_checkpoint(exact: Exported) -> None:
    network, _, model = exact
    layers = {name for name, _ in network.named_modules()}
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    # What the rewrite adds is not in the checkpoint; every convolution is, by name.
    assert convolutions
    assert {name.partition("/")[0] for name in convolutions} <= layers
    assert "backbone.0.conv1.weight" in {weight.name for weight in model.graph.initializer}


def test_nothing_tells_of_this_machine(exact: Exported) -> None:
    text = exact[2].SerializeToString()
    assert b"site-packages" not in text
    assert b"/emadeploy/" not in text
    assert not exact[2].graph.node[0].metadata_props


@pytest.mark.parametrize(
    ("node", "branch"),
    [
        ("backbone.0.conv1/Conv", "backbone"),
        ("backbone.conv1/Conv", "backbone"),
        ("backbones.depth.conv1/Conv", "backbone.depth"),
        ("scale_2.refinement.normals.0.conv1/Conv", "initial.normals"),
        ("scale_fusion.depth.last_layer.0/Conv", "propagation"),
        ("fpm_scale_1.se.depth.squeeze.0/Gemm", "propagation"),
        ("ctal.spatial_att/Reshape", "ctal"),
        ("outputs.human_parts/Resize", "heads.human_parts"),
        ("decode.semseg/ArgMax", "heads.semseg"),
        ("frame/Cast", "frame"),
        ("backbone_of_another/Conv", OTHER),
        ("", OTHER),
    ],
)
def test_branch_of(node: str, branch: str) -> None:
    assert branch_of(node) == branch


def test_answering_fewer_tasks_computes_less(export: Callable[..., Exported]) -> None:
    _, graph, model = export("m_emanet", ("semseg", "depth"), Wanted(tasks=("depth",)))
    assert graph.model.task_names == ("depth",)
    assert [output.name for output in model.graph.output] == ["depth"]
    names = "\n".join(node.name for node in model.graph.node)
    for layer in ("heads", "ctal.conv_out", "ctal.spatial_att.projection"):
        assert f"{layer}.depth" in names
        assert f"{layer}.semseg" not in names
    # The attention of depth needs the features of the other task all the same.
    assert "ctal.conv_in.semseg" in names
    assert "decoders" not in names
    assert graph.parity.keys() == {"depth"}
