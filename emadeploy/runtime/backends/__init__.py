"""The engines that can run an artifact: a table of import strings, so that listing them imports nothing.

Each module of this folder has the name of its engine and one public function, ``open_session``
(:class:`emadeploy.runtime.session.OpenSession`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from emadeploy.contract.errors import BackendMissing
from emadeploy.runtime.session import OpenSession


@dataclass(frozen=True)
class Backend:
    """Where an engine's ``open_session`` is, the package that it needs and the extra that installs the package."""

    opener: str  # "module:function"
    package: str
    extra: str


#: Engine -> backend.
BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend("emadeploy.runtime.backends.onnxruntime:open_session", "onnxruntime", "onnxruntime"),
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
    module, function = backend.opener.split(":")
    try:
        found: OpenSession = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != backend.package:
            raise
        raise BackendMissing.of(f"engine {engine!r}", backend.package, backend.extra) from None
    except ImportError as error:
        # Installed, and broken: another interpreter's wheel, a missing system library.
        raise BackendMissing(
            f"engine {engine!r}: {backend.package} is installed, but its import fails: {error}"
        ) from None
    return found
