"""Floor 3: from a checkpoint to an ONNX graph that an edge device can run, proven equal to PyTorch."""
