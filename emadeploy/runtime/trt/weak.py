"""TensorRT 8.6, whose networks are weakly typed: within its flags it computes each layer in what is fastest.

Later versions compute what the graph says. This one is allowed float16 and int8 where the target needs them, and told
which layers the graph has in float32, where they were kept on purpose: a sum over all pixels, a norm, a softmax. Of its
products it is told those in float16 too: where float32 is faster it would take that, and the audit refuse the engine.

Its parser, and that of 9, reads ONNX up to opset 17. What is newer it takes all the same, and misreads: the axes of a
reduction, which are an input from 18 on, are all axes to it; and a float16 scale, which came with 19, is a float32.
"""

from __future__ import annotations

from typing import Any

#: What must be allowed for a target's precision; int8 itself follows the Q/DQ of the graph.
FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}
#: Layers that round what they compute; the others move values, or name their types themselves.
_ROUNDING = {
    "ACTIVATION",
    "CONVOLUTION",
    "DECONVOLUTION",
    "ELEMENTWISE",
    "FULLY_CONNECTED",
    "MATRIX_MULTIPLY",
    "NORMALIZATION",
    "POOLING",
    "REDUCE",
    "SCALE",
    "SOFTMAX",
    "UNARY",
}
#: Those of them that the audit looks at.
_PRODUCTS = {"CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY"}
#: What is newer, it misreads.
NEWEST_OPSET = 17


def keep_types(module: Any, network: Any, config: Any, precision: str) -> None:
    """Allow ``config`` what a target of ``precision`` needs, and hold the layers of ``network`` to their types."""
    for flag in FLAGS[precision]:
        config.set_flag(getattr(module.BuilderFlag, flag))
    if not FLAGS[precision]:
        return
    # A build that cannot obey fails, and says so; PREFER_PRECISION_CONSTRAINTS would go on in silence.
    config.set_flag(module.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    bytes_ = {layer.get_output(0).name for layer in layers if layer.type.name == "DEQUANTIZE"}
    for layer in layers:
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        # What reads bytes is to be computed in bytes, whatever float its Q/DQ stand between.
        if layer.type.name not in _ROUNDING or any(tensor and tensor.name in bytes_ for tensor in inputs):
            continue
        dtype = layer.get_output(0).dtype
        if dtype == module.DataType.FLOAT or (dtype == module.DataType.HALF and layer.type.name in _PRODUCTS):
            layer.precision = dtype
            layer.set_output_type(0, dtype)
