"""TensorRT and TensorRT for RTX: one adapter over their versions, the record of a compiled engine, and compiling."""
