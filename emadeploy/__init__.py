"""emadeploy: train, export, quantise and run EMA-Net on edge devices.

    from emadeploy import load
    perception = load("emanet-rooms.onnxruntime-fp32")
    result = perception(frame)          # uint8 (H, W, 3) RGB
    result.depth, result.normals, result.semseg
"""

from emadeploy.runtime import Runtime, load

__all__ = ["Runtime", "__version__", "load"]
__version__ = "0.1.0"
