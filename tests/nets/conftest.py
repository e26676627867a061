"""Fixtures for the networks: specifications, and the reference data made accessible."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from emadeploy.contract.spec import CtalSpec, InputSpec, ModelSpec, TaskSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))

CHANNELS = {"semseg": 13, "depth": 1, "normals": 3, "edge": 1, "saliency": 2, "human_parts": 7}


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    """Return a function that makes a specification, small unless told otherwise."""

    def make(
        network: str = "emanet",
        tasks: tuple[str, ...] = ("semseg", "depth", "normals"),
        size: tuple[int, int] = (32, 64),
        form: str = "exact",
    ) -> ModelSpec:
        return ModelSpec(
            name="tiny",
            network=network,
            tasks=tuple(TaskSpec(kind, CHANNELS[kind]) for kind in tasks),
            input=InputSpec(*size),
            ctal=CtalSpec(form=form),
        )

    return make


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """Return the L2 norm of the difference over that of the expected tensor."""

    def error(found: Tensor, expected: Tensor) -> float:
        difference = torch.linalg.vector_norm(found - expected)
        return (difference / torch.linalg.vector_norm(expected).clamp_min(1e-30)).item()

    return error


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
