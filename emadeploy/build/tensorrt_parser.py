"""A graph for TensorRT, shown to a real parser where one is installed: TensorRT for RTX reads graphs without a GPU."""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import BackendMissing, DeviceError
from emadeploy.runtime.trt.library import load_library

ENGINE = "tensorrt_rtx"
#: What a manifest calls the parser that has taken its graph, among its versions.
PARSER = "parser"


def parsed_by(path: Path) -> str | None:
    """Return what has parsed the graph at ``path``, 'TensorRT for RTX 1.7.1.116'; ``None`` where none can here.

    Its parser is TensorRT's own. Raises BuildError that names the node where it does not take the graph.
    """
    try:
        library = load_library(ENGINE)
        library.parse(path.read_bytes(), str(path))
    except (BackendMissing, DeviceError):  # not installed, or it does not start here
        return None
    return f"{library.title} {library.version_text}"
