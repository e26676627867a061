"""Floor 3: INT8 from real frames: recipes, frames, ranges, and Q/DQ, one module per engine.

Each module that quantises has the name of its engine and one public function, ``quantize`` (:class:`Quantize`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.guarded import Guarded

if TYPE_CHECKING:
    from emadeploy.build.graph import OnnxGraph
    from emadeploy.calibrate.frames import CalibrationFrames
    from emadeploy.calibrate.recipe import Recipe


class Quantize(Protocol):
    """What quantises graphs for an engine: its function ``quantize``."""

    def __call__(
        self,
        graph: OnnxGraph,
        frames: CalibrationFrames,
        recipe: Recipe,
        folder: Path,
        *,
        keep: Collection[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> OnnxGraph:
        """Write ``graph`` quantised into ``folder``, but for the nodes ``keep``, and return its record.

        What is found out about the frames is kept and used again for the same graph, frames and recipe. Ranges that
        training has learned for this recipe's target (``graph.learned``) take the place of those, where Q/DQ is ours.
        ``progress`` is called with the number of frames run and the number of all. Raises CalibrationError.
        """


#: Engine -> its ``quantize``.
QUANTIZERS: dict[str, Guarded] = {
    "onnxruntime": Guarded("emadeploy.calibrate.onnxruntime:quantize", "onnxruntime", "export"),
    "openvino": Guarded("emadeploy.calibrate.openvino:quantize", "nncf", "export"),
    "tensorrt": Guarded("emadeploy.calibrate.tensorrt:quantize", "onnxruntime", "export"),
    "tensorrt_rtx": Guarded("emadeploy.calibrate.tensorrt:quantize", "onnxruntime", "export"),
}


def quantizer(engine: str) -> Quantize:
    """Return the function that quantises for ``engine``; raises BackendMissing where its library is not installed."""
    found = QUANTIZERS.get(engine)
    if found is None:
        raise CalibrationError(f"engine {engine!r} has no int8 here; those that have: {', '.join(QUANTIZERS)}")
    quantize: Quantize = found.load(f"int8 for engine {engine!r}")
    return quantize
