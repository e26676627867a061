"""emadeploy: train, export, quantise and run EMA-Net on edge devices."""

__version__ = "0.1.0"
