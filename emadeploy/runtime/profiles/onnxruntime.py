"""Times of ONNX Runtime's kernels, from the profile that it writes itself."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from emadeploy.contract.branches import layer_branch
from emadeploy.contract.errors import DeviceError, first_line
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.backends.onnxruntime import create, session_options
from emadeploy.runtime.profile import LayerTime
from emadeploy.runtime.session import Array

#: Kernels that do the arithmetic, in float and in int8, alone and with what was fused into them.
_COMPUTE = re.compile(r"(Fused|QLinear|Quantized|Dynamic\w*)?(Conv|ConvTranspose|MatMul|Gemm|QGemm)(Integer\w*)?")
_PRECISIONS = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}
#: What ONNX Runtime appends to the name of a node, or to that of the tensor it answers, when it makes another of it.
_APPENDED = re.compile(r"(_nchwc|_token_\d+|/\w+Fusion\w*/?)*$")

Event = Mapping[str, Any]


def profile(
    directory: Path, manifest: Manifest, inputs: Mapping[str, Array], *, threads: int, device: str | None, runs: int
) -> list[LayerTime]:
    """Return the kernels of an artifact; see :class:`emadeploy.runtime.profile.Profiler`."""
    with tempfile.TemporaryDirectory(prefix="emadeploy-profile-") as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = create(directory, manifest, options, device or "cpu")
        try:
            for _ in range(1 + runs):
                session.run(None, dict(inputs))
        except Exception as error:
            raise DeviceError(f"onnxruntime failed while running: {first_line(error)}") from None
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return layer_times(events, [spec.name for spec in manifest.outputs])


def layer_times(events: Iterable[Event], outputs: Iterable[str]) -> list[LayerTime]:
    """Return the kernels of a profile in the order of their first run, with their median time without that first run.

    A kernel is part of the branch that its name is of: its node's, or that of the tensor it answers, where several
    nodes became one; ``outputs`` are the names of those that heads answer.
    """
    heads = {name: f"heads.{name}" for name in outputs}
    found = []
    for kernel, times in kernel_runs(events).items():
        name, op = node_name(kernel), str(times[0]["args"]["op_name"])
        compute = is_compute(op)
        branch = layer_branch([name], compute=compute, outputs=heads)
        counted = [event["dur"] for event in times[1:]] or [times[0]["dur"]]
        precision = kernel_precision(times[0], compute=compute)
        found.append(LayerTime(name, op, branch, precision, median(counted) / 1e3))
    return found


def kernel_runs(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Return the runs of each kernel in a profile, by its name, in the order of the first."""
    runs: dict[str, list[Event]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    return runs


def node_name(kernel: str) -> str:
    """Return the name of the node, or of the tensor, that a kernel was named after."""
    return _APPENDED.sub("", kernel)


def is_compute(op: str) -> bool:
    """Return whether a kernel of the kind ``op`` is a convolution or a matrix product."""
    return _COMPUTE.fullmatch(op) is not None


def kernel_precision(event: Event, *, compute: bool) -> str:
    """Return the precision of a kernel: that of its first input where it multiplies, else that of its first output."""
    # A product of int8 may answer float; all else is what it answers.
    types = event["args"]["input_type_shape" if compute else "output_type_shape"]
    type_ = next(iter(types[0]), "none") if types else "none"
    return _PRECISIONS.get(type_, type_)
