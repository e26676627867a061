"""The audit: whose a layer is, what is counted, and which precisions are refused."""

from collections import defaultdict

import pytest

from emadeploy.build.audit import Layer, audit, check_obtained, obtained
from emadeploy.contract.branches import layer_branch
from emadeploy.contract.errors import BuildError


def layer(node: str, precision: str, microseconds: float = 10, *, compute: bool = True) -> Layer:
    return Layer((node,), layer_branch([node], compute=compute), precision, microseconds, compute)


@pytest.mark.parametrize(
    ("nodes", "compute", "branch"),
    [
        # as OpenVINO 2026.4 reports them
        (
            ["backbone.0.conv3/Conv", "Multiply_34717", "backbone.0/Add", "backbone.0/Relu/fq_output_0"],
            True,
            "backbone",
        ),
        (["heads.depth.0.conv1/Conv", "ctal/Add"], True, "heads.depth"),
        (["heads.depth.0.conv1/Conv", "ctal/Add"], False, "ctal"),
        (["ctal/Mul", "Multiply_17"], False, "ctal"),
        (["Multiply_17"], True, "other"),
        ([], False, "other"),
        (["depth"], False, "heads.depth"),
        (["ctal/Add", "depth"], False, "heads.depth"),
    ],
)
def test_whose_a_layer_is(nodes: list[str], compute: bool, branch: str) -> None:
    assert layer_branch(nodes, compute=compute, outputs={"depth": "heads.depth"}) == branch


LAYERS = [
    layer("backbone.0/Conv", "int8", 60),
    layer("backbone.1/Conv", "int8", 20),
    layer("backbone.1/Resize", "fp32", 20, compute=False),
    layer("ctal/MatMul", "int8", 30),
    layer("ctal/MatMul_1", "bf16", 10),
    layer("decode.depth/Clip", "fp32", 1, compute=False),
    layer("decode.depth/Cast", "int32", 3, compute=False),
    layer("Reorder_7", "fp32", 6, compute=False),
]


def test_shares_of_layers_and_of_time() -> None:
    record = audit(
        LAYERS, engine="openvino 2026", machine="a CPU", branches=("backbone", "ctal", "frame", "heads.depth")
    )
    assert (record["engine"], record["machine"]) == ("openvino 2026", "a CPU")
    assert list(record["branches"]) == ["backbone", "ctal", "heads.depth", "other"]
    assert record["branches"]["backbone"] == {
        "layers": {"int8": 0.6667, "fp32": 0.3333},
        "time": {"int8": 0.8, "fp32": 0.2},
        "compute": {"int8": 2},
        "microseconds": 100,
    }
    assert record["branches"]["ctal"]["compute"] == {"int8": 1, "bf16": 1}
    assert record["total"]["time"] == {"int8": 0.7333, "fp32": 0.18, "bf16": 0.0667, "int32": 0.02}
    assert record["total"]["compute"] == {"int8": 3, "bf16": 1}


def test_the_precision_of_a_branch() -> None:
    record = audit(LAYERS, engine="e", machine=None)
    assert obtained(record) == {"backbone": "int8", "ctal": "mixed", "heads.depth": "int32"}
    stray = audit([layer("Gemm_3", "fp32")], engine="e", machine=None)
    assert obtained(stray) == {"other": "fp32"}


def test_a_branch_that_took_no_time_has_shares_all_the_same() -> None:
    record = audit([layer("ctal/Relu", "fp32", 0, compute=False)], engine="e", machine=None)
    assert record["branches"]["ctal"]["time"] == {"fp32": 0.0}
    assert obtained(record) == {"ctal": "fp32"}


def wanted(default: str = "int8", **branches: str) -> defaultdict[str, str]:
    return defaultdict(lambda: default, branches)


def test_what_was_asked_for_and_obtained_passes() -> None:
    check_obtained(LAYERS, "openvino-int8", wanted(), kept={"ctal/MatMul_1"})
    check_obtained(LAYERS[:4], "openvino-int8", wanted(), kept=())
    check_obtained([LAYERS[4]], "openvino-int8", wanted(ctal="bf16"), kept=())


def test_float_where_int8_was_asked_for() -> None:
    with pytest.raises(
        BuildError,
        match=r"openvino-int8: branch 'ctal' was asked for in int8; 1 convolution or product runs in bf16: "
        r"ctal/MatMul_1\. Both inputs .* symmetrically: calibrate it so, or keep it in float on purpose",
    ):
        check_obtained(LAYERS, "openvino-int8", wanted(), kept=())


def test_the_branch_with_most_of_them_is_named_and_its_first_layers() -> None:
    layers = [LAYERS[4], *(layer(f"heads.depth.{i}/Conv", "fp32") for i in range(6))]
    with pytest.raises(
        BuildError, match=r"'heads\.depth' .* 6 convolutions and products run in fp32: .*\.3/Conv, and 2 more"
    ):
        check_obtained(layers, "openvino-int8", wanted(), kept=())


@pytest.mark.parametrize(
    ("default", "got", "advice"),
    [
        ("fp32", "int8", "quantised all the same"),
        ("bf16", "fp32", "one precision for what is not int8: ask for fp32 there"),
        ("fp32", "bf16", "one precision for what is not int8: ask for bf16 there"),
    ],
)
def test_other_precisions_than_asked_for(default: str, got: str, advice: str) -> None:
    with pytest.raises(BuildError, match=rf"asked for in {default}; .* in {got}: ctal/MatMul\. .*{advice}"):
        check_obtained([layer("ctal/MatMul", got)], "t", wanted(default), kept=())


def test_to_keep_a_node_exempts_it_from_int8_and_from_nothing_else() -> None:
    check_obtained([layer("ctal/MatMul", "fp32")], "t", wanted(), kept={"ctal/MatMul"})
    with pytest.raises(BuildError):
        check_obtained([layer("ctal/MatMul", "fp32")], "t", wanted(), kept={"ctal/MatMul_1"})
    with pytest.raises(BuildError):
        check_obtained([layer("ctal/MatMul", "int8")], "t", wanted("bf16"), kept={"ctal/MatMul"})
    with pytest.raises(BuildError):
        check_obtained([layer("ctal/MatMul", "u4")], "t", wanted(), kept={"ctal/MatMul"})
