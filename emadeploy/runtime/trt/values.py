"""What goes into the adapter over TensorRT's versions, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emadeploy.runtime.session import Signature


@dataclass(frozen=True)
class IoTensor:
    """An input or output of an engine: ``dtype`` is numpy's name for it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_input: bool

    @property
    def signature(self) -> Signature:
        """Name, shape and dtype, as :func:`emadeploy.runtime.session.check_signature` compares them."""
        return self.name, self.shape, self.dtype


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    - ``precision``: of the target; only TensorRT 8.6 must be told, the others read it from the graph.
    - ``workspace``: bytes that a layer may use while it runs; ``None`` leaves TensorRT's own limit, all there is.
    - ``tactics``: bytes that the search for kernels may take; on a Jetson that is the memory of the whole build.
    - ``optimization_level``: 0 (fast build) to 5 (fast engine); ``None`` is TensorRT's own, 3.
    - ``dla``: the DLA core that takes what it can; ``compute_capabilities``: build ahead of time for these ('8.9').
    """

    precision: str = "fp32"
    workspace: int | None = None
    tactics: int | None = None
    optimization_level: int | None = None
    dla: int | None = None
    compute_capabilities: tuple[str, ...] = ()


@dataclass
class Parsed:
    """A graph inside TensorRT. The builder must live as long as what came from it."""

    builder: Any
    network: Any
    parser: Any = field(repr=False)
