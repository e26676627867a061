"""emadeploy: train, export, quantise and run EMA-Net on edge devices. This import needs numpy alone."""

from emadeploy.runtime import Runtime, load

__version__ = "0.1.0"
__all__ = ["Runtime", "__version__", "load"]
