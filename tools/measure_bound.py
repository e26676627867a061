"""Measure how near OpenVINO's int8 engines come to the arithmetic of this CPU, branch by branch; write docs/bound.json.

    python tools/bench_targets.py -o FOLDER
    python tools/measure_bound.py FOLDER [--json docs/bound.json]

The bound of a branch is its multiply-accumulates over the rate of a convolution that suits the CPU best: int8, 3 x 3,
many channels, measured here. What was reached is in the manifests' audits: the engine's own clock, layer by layer.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

from emadeploy.calibrate.fakes import compute_nodes
from emadeploy.contract.branches import branch_of
from emadeploy.contract.errors import ArtifactError, EmadeployError, one_line
from emadeploy.contract.manifest import Manifest
from emadeploy.evaluate.records import write_record
from emadeploy.runtime.backends.openvino import CORE
from emadeploy.runtime.machine import cpu_flags, cpu_model, usable_cores

SCHEMA = 1
JSON = Path(__file__).parents[1] / "docs" / "bound.json"
#: Artifacts of tools/bench_targets.py.
ARTIFACTS = ("ov-int8", "ov-int8-basis")
#: The convolutions that set the rate, so many one after the other: those after the upsampling, which fit the CPU best.
_DEPTH, _CHANNELS, _MAP = 6, 128, (144, 192)
_RUNS = 21


def work_by_branch(model: ov.Model) -> dict[str, float]:
    """Return the multiply-accumulates of every branch of the network, in the order of the graph."""
    work: Counter[str] = Counter()
    for name, node in compute_nodes(model).items():
        work[branch_of(name)] += _work(node)
    return dict(work)


def _work(node: ov.Node) -> float:
    """Multiply-accumulates of one compute node, whose extents are fixed."""
    result, left, right = math.prod(node.get_output_shape(0)), node.get_input_shape(0), node.get_input_shape(1)
    if node.get_type_name() == "MatMul":
        return float(result * left[-2 if node.get_attributes()["transpose_a"] else -1])
    # Weights (O, I, h, w), or (groups, O / groups, I / groups, h, w): what one value of the result sums up.
    return float(result * math.prod(right[1 if node.get_type_name() == "Convolution" else 2 :]))


def rate(threads: int) -> float:
    """Return the int8 multiply-accumulates per second that ``threads`` reach in the best of several convolutions."""
    model = _convolutions()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    request = CORE.compile_model(model, "CPU", settings).create_infer_request()
    image = np.random.default_rng(0).uniform(0, 1, model.input(0).get_shape()).astype(np.float32)
    seconds: dict[str, list[float]] = {}
    for _ in range(_RUNS):
        request.infer({0: image})
        for layer in request.profiling_info:
            if layer.exec_type.endswith("_I8"):
                seconds.setdefault(layer.node_name, []).append(layer.real_time.total_seconds())
    # The first rounds its input, the last makes float: one between them is all arithmetic.
    return max(_work(node) / float(np.median(seconds[name])) for name, node in compute_nodes(model).items())


def _convolutions() -> ov.Model:
    rng = np.random.default_rng(0)
    image = feat = opset13.parameter((1, _CHANNELS, *_MAP), np.float32)
    for index in range(_DEPTH):
        weight = rng.normal(0, 0.02, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
        inputs = _rounded(feat, 0.0, 1.0, 256), _rounded(opset13.constant(weight), -0.1, 0.1, 255)
        feat = opset13.convolution(*inputs, [1, 1], [1, 1], [1, 1], [1, 1])
        feat.set_friendly_name(f"rate.{index}/Conv")
        feat = opset13.relu(feat)
    return ov.Model([feat], [image])


def _rounded(value: Any, low: float, high: float, levels: int) -> Any:
    return opset13.fake_quantize(value, *map(np.float32, (low, high, low, high)), levels)


def bound_of(artifact: Path, per_second: float) -> dict[str, Any]:
    """Return work, bound and time reached of an artifact, by branch. Raises ArtifactError."""
    manifest = Manifest.read(artifact)
    if manifest.engine != "openvino" or manifest.audit is None:
        raise ArtifactError(f"{artifact} is {manifest.target}, expected an audited artifact of openvino-int8")
    work = work_by_branch(CORE.read_model(artifact / manifest.engine_file))
    branches = {
        name: {
            "macs": work.get(name, 0.0),
            "bound_ms": 1e3 * work.get(name, 0.0) / per_second,
            "reached_ms": found["microseconds"] / 1e3,
        }
        for name, found in manifest.audit["branches"].items()
    }
    return {
        "name": artifact.name,
        "size": list(manifest.model.input.size),
        "ctal": manifest.graph.get("ctal"),
        "machine": manifest.audit["machine"],
        "branches": branches,
        "total": {key: sum(each[key] for each in branches.values()) for key in ("macs", "bound_ms", "reached_ms")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what `tools/bench_targets.py -o` left")
    parser.add_argument("--json", type=Path, default=JSON, metavar="FILE")
    asked = parser.parse_args(arguments)
    try:
        per_second = rate(usable_cores())
        record = {
            "schema": SCHEMA,
            "command": "python tools/measure_bound.py",
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "machine": {"cpu": cpu_model(), "cores": usable_cores(), "flags": cpu_flags()},
            "threads": usable_cores(),
            "macs_per_second": per_second,
            "versions": {"openvino": ov.__version__.split("-")[0]},
            "artifacts": [bound_of(asked.folder / name, per_second) for name in ARTIFACTS],
        }
        write_record(asked.json, record)
    except EmadeployError as error:
        print(f"measure_bound: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"{asked.json}: {per_second / 1e9:.0f} GMAC/s; now run python tools/readme_table.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
