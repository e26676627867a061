"""The layers of an engine: as the inspector writes them, and as the builder lists them in its log."""

from typing import Any

import pytest

from emadeploy.runtime.trt.layers import EngineLayer, from_inspector, from_log

#: From the log of TensorRT for RTX 1.7, building the int8 graph of emanet-rooms; strides left out.
LOG = """
Name: stem_myl0_4, LayerType: correlation, Inputs: [ { Name: __mye2, Dimensions: [1,4,288,384], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye3, Dimensions: [64,4,3,3], Datatype: Int8, Format: (NHWC) Channel major format }, { Name: __mye4, Dimensions: [1,64,1,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: o, Dimensions: [1,64,144,192], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: backbone.0.conv1/Conv][ONNX Layer: backbone.0.conv1/image/DequantizeLinear][ONNX Layer: backbone.0.conv1.weight/DequantizeLinear]
Name: __mye_wait_0, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 1, Metadata:
Name: __myl_Move_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,3,32,64], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: b, Dimensions: [1,3,32,64], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: __myl_Move_0x7e, StreamId: 0, Metadata:
Name: product_myl0_5, LayerType: gemm, Inputs: [ { Name: a, Dimensions: [384,6912], Datatype: Int8, Format: (Linear) Row major linear format }, { Name: b, Dimensions: [6912,384], Datatype: Int8, Format: (Linear) Row major linear format }], Constants: [ { Name: c, Dimensions: [1], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: o, Dimensions: [384,384], Datatype: Int8, Format: (Linear) Row major linear format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: ctal.product.0/MatMul]

Bindings:
"""  # noqa: E501 - as it comes


def test_the_log_of_a_build_tells_precisions_and_nodes() -> None:
    stem, move, product = from_log(LOG)
    assert stem == EngineLayer("stem_myl0_4", "correlation", ("backbone.0.conv1/Conv",), "int8", compute=True)
    assert (move.precision, move.nodes, move.compute) == ("fp16", (), False)
    assert (product.precision, product.nodes, product.compute) == ("int8", ("ctal.product.0/MatMul",), True)


@pytest.mark.parametrize("separator", ["", "\x1e", "\x1f"])
def test_nodes_of_a_fused_layer_stand_between_control_characters(separator: str) -> None:
    (stem, *_) = from_log(
        LOG.replace("][ONNX Layer: ", f"]{separator}[ONNX Layer: ").replace(
            "[ONNX Layer: backbone.0.conv1/Conv]", f"[ONNX Layer: a/Relu]{separator}[ONNX Layer: b/Conv]"
        )
    )
    assert stem.nodes == ("a/Relu", "b/Conv")


def layer(kind: str, inputs: list[str], **more: Any) -> dict[str, Any]:
    tensors = [{"Name": f"t{index}", "Format/Datatype": type_} for index, type_ in enumerate(inputs)]
    return {"Name": "a layer", "LayerType": kind, "Inputs": tensors, "Outputs": [], **more}


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        (layer("CaskConvolution", ["Thirty-two wide channel vectorized row major Int8 format"]), "int8"),
        (layer("CaskConvolution", ["Row major Int8 format"], Weights={"Type": "Int8", "Count": 9}), "int8"),
        # Weights of bytes and activations of float: what "weights only" means.
        (layer("CaskConvolution", ["Channel major FP16 format"], Weights={"Type": "Int8", "Count": 9}), "fp16"),
        (layer("CaskConvolution", ["Row major Int8 format"], Weights={"Type": "Half", "Count": 9}), "fp16"),
        # A residual that is added to what bytes make: it is no factor.
        (layer("CaskConvolution", ["Row major Int8 format", "FP16"], Weights={"Type": "Int8", "Count": 9}), "int8"),
        (layer("CaskConvolution", ["FP16", "Row major Int8 format"], Weights={"Type": "Int8", "Count": 9}), "fp16"),
        (layer("correlation", ["Int8", "Half"], Constants=[{"Datatype": "Int8"}, {"Datatype": "Float"}]), "int8"),
        # Weights that are computed: they are an input.
        (layer("CaskConvolution", ["Int8 format", "FP16 format"], Weights={"Type": "Float", "Count": 0}), "fp16"),
        (layer("CaskConvolution", ["Int8 format", "Int8 format"], Weights={"Type": "Float", "Count": 0}), "int8"),
        (layer("gemm", ["Int8", "Half"], Constants=[{"Datatype": "Int8"}]), "fp16"),
        (layer("gemm", ["Row major Int8 format", "Row major linear FP32"]), "fp32"),
        (layer("gemm", ["Row major Int8 format", "Row major Int8 format"]), "int8"),
        (layer("gemm", ["Row major linear BFloat16", "Row major linear BFloat16"]), "bf16"),
        (layer("gemm", []), "unknown"),
        ({"Name": "a layer", "LayerType": "gemm", "Inputs": [{"Datatype": "Half"}], "Metadata": ""}, "fp16"),
    ],
)
def test_a_product_has_the_precision_of_its_wider_factor(found: dict[str, Any], precision: str) -> None:
    (read,) = from_inspector([{**found, "Metadata": "[ONNX Layer: heads.depth/Conv]"}])
    assert (read.precision, read.compute) == (precision, True)


def test_unsigned_bytes_are_not_int8() -> None:
    found = layer("Reformat", ["Row major linear UInt8 format"], Metadata="[ONNX Layer: image/Cast]")
    assert [read.precision for read in from_inspector([found])] == ["uint8"]


def test_a_fused_kernel_is_a_product_only_where_nothing_else_computes_it() -> None:
    conv = layer("CaskConvolution", ["FP16"], Metadata="[ONNX Layer: backbone.a/Conv]")
    epilogue = layer("kgen", ["FP32"], Metadata="[ONNX Layer: backbone.a/Conv]\x1e[ONNX Layer: backbone.a/Relu]")
    fused = layer("kgen", ["FP16"], Metadata="[ONNX Layer: ctal/MatMul_gram]\x1e[ONNX Layer: ctal/Mul]")
    found = from_inspector([conv, epilogue, fused])
    assert [read.compute for read in found] == [True, False, True]
    assert found[1].nodes == ("backbone.a/Conv", "backbone.a/Relu")


def test_older_versions_name_a_fused_layer_by_its_nodes() -> None:
    found = layer(
        "CaskConvolution", ["Int8"], Name="backbone.a.weight/QuantizeLinear + backbone.a/Conv + backbone.a/Relu"
    )
    (read,) = from_inspector([found])
    assert read.nodes == ("backbone.a/Conv", "backbone.a/Relu")
    (read,) = from_inspector([layer("CaskConvolution", ["Half"], Name="heads.a/Conv || heads.b/Conv")])
    assert read.nodes == ("heads.a/Conv", "heads.b/Conv")


def test_an_engine_without_detail_tells_of_nothing() -> None:
    assert from_inspector([{"Name": "a layer"}]) == []
