"""Fixtures for the adapter over TensorRT: versions of it, and a graph for them."""

from pathlib import Path

import pytest
from networks import tiny_graph
from tensorrt_installed import everywhere, installed

__all__ = ["everywhere", "installed"]


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a graph of a backbone, a product of CTAL and a head."""
    return tiny_graph(tmp_path_factory.mktemp("tiny")).path
