"""The engines that can run an artifact: a table of import strings, so that listing them imports nothing.

Each module of this folder has the name of its engine and one public function, ``open_session``
(:class:`emadeploy.runtime.session.OpenSession`); TensorRT for RTX shares that of TensorRT.
"""

from __future__ import annotations

from emadeploy.contract.errors import BackendMissing
from emadeploy.contract.guarded import Guarded
from emadeploy.runtime.session import OpenSession

#: Engine -> its ``open_session``.
BACKENDS: dict[str, Guarded] = {
    "onnxruntime": Guarded("emadeploy.runtime.backends.onnxruntime:open_session", "onnxruntime", "onnxruntime"),
    "openvino": Guarded("emadeploy.runtime.backends.openvino:open_session", "openvino", "openvino"),
    # They look for TensorRT when they open an engine, and for its GPU first.
    "tensorrt": Guarded("emadeploy.runtime.backends.tensorrt:open_session", "tensorrt", "tensorrt"),
    "tensorrt_rtx": Guarded("emadeploy.runtime.backends.tensorrt:open_session", "tensorrt_rtx", "tensorrt-rtx"),
}


def opener(engine: str) -> OpenSession:
    """Return the function that opens artifacts of ``engine``.

    Raises BackendMissing where this version has no backend for the engine, or where its package is not installed.
    """
    backend = BACKENDS.get(engine)
    if backend is None:
        raise BackendMissing(
            f"engine {engine!r} has no backend in this version of emadeploy; it runs: {', '.join(BACKENDS)}"
        )
    open_session: OpenSession = backend.load(f"engine {engine!r}")
    return open_session
