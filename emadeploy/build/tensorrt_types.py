"""What TensorRT takes of a strongly typed graph: types that fit together, and operators that its parser has.

Strongly typed networks (TensorRT 10 when asked to, 11 and TensorRT for RTX always) convert nothing by themselves: two
float types in one node are an error of the builder, and a pair of Q/DQ has its scale in the type of its float side.
"""

from __future__ import annotations

from collections.abc import Iterator

from emadeploy.build.tensorrt_graph import DEQUANTISE, QUANTISE, TYPES, Broken, Graph

_FLOATS = (TYPES.FLOAT, TYPES.FLOAT16, TYPES.BFLOAT16, TYPES.DOUBLE)
#: Inputs whose type stands apart from that of the others: region and scales of a Resize, the scale of a pair.
_APART = {"Resize": (1, 2), QUANTISE: (1,), DEQUANTISE: (1,)}

#: Operators that the parser has. Source: docs/operators.md of onnx-tensorrt, TensorRT 10.15: what it marks
#: "Y" there, but for control flow (If, Loop, Scan), recurrence, random numbers and what came with opset 20 and later.
_TABLE = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
    LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg Not OneHot Or PRelu Pad Pow
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Scatter ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_TABLE.split())


def operators(graph: Graph) -> Iterator[Broken]:
    """The parser has the operator."""
    for node in graph.nodes():
        if node.domain not in ("", "ai.onnx"):
            yield node.name, f"{node.domain}.{node.op_type} is no operator of ONNX: TensorRT would need a plugin"
        elif node.op_type not in OPERATORS:
            yield (
                node.name,
                f"TensorRT's parser has no {node.op_type}: write the layer with operators that it has "
                "(emadeploy.build.tensorrt_types.OPERATORS), or leave its task out with --tasks",
            )


def mixed(graph: Graph) -> Iterator[Broken]:
    """A node reads floats of one type."""
    for node in graph.nodes():
        apart = _APART.get(node.op_type, ())
        found: dict[int, str] = {}
        for index, name in enumerate(node.input):
            type_ = graph.types.get(name)
            if type_ in _FLOATS and index not in apart:
                found.setdefault(type_, name)
        if len(found) > 1:
            reads = " and ".join(f"{graph.type_name(name)} ({name!r})" for name in found.values())
            yield node.name, f"it reads {reads}; a strongly typed network converts nothing: put a Cast before it"


def scales(graph: Graph) -> Iterator[Broken]:
    """The scale of a pair has the type of its float side."""
    for node in graph.nodes(QUANTISE, DEQUANTISE):
        side = node.input[0] if node.op_type == QUANTISE else node.output[0]
        if graph.types.get(side) and graph.types.get(node.input[1]) != graph.types[side]:
            yield (
                node.name,
                f"its scale is {graph.type_name(node.input[1])} and its float side {side!r} {graph.type_name(side)}; "
                "give the scale in the type of the float side",
            )


def wide(graph: Graph) -> Iterator[Broken]:
    """No float64; int64 for shapes and indices inside, but not at inputs and answers, which were 32 bits before 9."""
    for node in graph.nodes():
        for name in (*node.input, *node.output):
            if graph.types.get(name) == TYPES.DOUBLE:
                yield node.name, f"tensor {name!r} is float64, which TensorRT lacks: make it float32 in the network"
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        if graph.types[value.name] == TYPES.INT64:
            maker = graph.maker.get(value.name)
            yield (
                maker.name if maker else value.name,
                f"{value.name!r}, which goes in or comes out, is int64; versions of TensorRT disagree about its width: "
                "cast it to int32 or uint8 inside the graph",
            )


def bytes_inside(graph: Graph) -> Iterator[Broken]:
    """Unsigned bytes go in and come out; nothing but a Cast reads or makes them."""
    for node in graph.nodes():
        if node.op_type in ("Cast", QUANTISE, DEQUANTISE):
            continue  # of pairs, other rules know
        for name in (*node.input, *node.output):
            if graph.types.get(name) == TYPES.UINT8:
                yield (
                    node.name,
                    f"tensor {name!r} is uint8, which TensorRT has at its inputs and outputs alone: put the Cast next "
                    "to them",
                )
                break
