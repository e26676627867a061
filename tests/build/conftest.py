"""Fixtures for building: versions of TensorRT."""

from tensorrt_installed import everywhere, installed

__all__ = ["everywhere", "installed"]
