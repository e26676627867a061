"""What int8 costs before and after `emadeploy train --qat`: calibrated against learned against float32, same frames.

    emadeploy train --from emanet-rooms --qat onnxruntime-int8 --data rooms:seed=3,count=350 -o runs/tuned
    python tools/measure_qat.py --from emanet-rooms --run runs/tuned --data rooms:seed=7,count=40,size=288x384

The calibrated graph is the one that the run started from (RUN/int8); the learned one is exported from RUN/last. Each is
run by ONNX Runtime, the networks in float by PyTorch. Errors of raw maps are relative to their length (`raw_error`):
against the network that the run started from, and against the same weights in float, which is what rounding costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emadeploy import nets, zoo
from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.learning import learning_of
from emadeploy.cli.exporting.make import make_artifact
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset
from emadeploy.data.source import open_data
from emadeploy.evaluate.metrics import METRICS, Metrics
from emadeploy.evaluate.parity import raw_error
from emadeploy.runtime import load

Maps = Mapping[str, Any]
#: Frame -> raw maps by task.
Raw = Callable[[Any], Maps]


def main() -> None:
    """Measure, print the table, and write it as json where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="start", required=True, help="what the run started from")
    parser.add_argument("--run", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--data", required=True, help="held-out data with truth")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    start = zoo.weights(arguments.start) if arguments.start in zoo.names() else Path(arguments.start)
    data = open_data(arguments.data, split="val")
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(start, arguments.run, data, Path(scratch))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(start: Path | None, run: Path, data: Dataset, scratch: Path) -> list[dict[str, Any]]:
    """Return a row for each network, with its metrics by task and its errors against the two networks in float."""
    quantised = OnnxGraph.read(run / "int8")
    target, size = learning_of(quantised)["target"], quantised.model.input.size
    builder(target.split("-")[0])(quantised, scratch / "calibrated", target)
    order = Order(target=target, output=scratch / "learned", size=size, max_drop="none")
    make_artifact(str(run / "last"), order)
    before = in_float(nets.load(start or "", size=size))
    after = in_float(nets.load(run / "last", size=size))
    with load(scratch / "calibrated") as calibrated, load(scratch / "learned") as learned:
        networks: list[tuple[str, Raw, Raw]] = [
            ("float32, as it was", before, before),
            (f"{target}, calibrated", calibrated.raw, before),
            ("float32, fine-tuned", after, after),
            (f"{target}, learned", learned.raw, after),
        ]
        return [row(name, raw, before, own, quantised.model, data) for name, raw, own in networks]


def in_float(network: nets.Network) -> Raw:
    """Return the network as a function of a frame."""
    network.eval()

    def raw(frame: Any) -> Maps:
        with torch.inference_mode():
            maps = network.deploy(torch.from_numpy(preprocess(frame, network.spec.input)))
        return {task: values.numpy() for task, values in maps.items()}

    return raw


def row(name: str, raw: Raw, before: Raw, own: Raw, spec: ModelSpec, data: Dataset) -> dict[str, Any]:
    """Return the metrics of ``raw``, and its mean errors against ``before`` and its ``own`` weights in float."""
    metrics = Metrics(spec.tasks)
    errors: dict[str, list[tuple[float, float]]] = {task: [] for task in spec.task_names}
    for index in range(len(data)):
        sample = data[index]
        found, first, same = raw(sample.image), before(sample.image), own(sample.image)
        for task in spec.task_names:
            errors[task].append((raw_error(found[task], first[task]), raw_error(found[task], same[task])))
        metrics.update({t.name: decode(found[t.name], t, sample.image.shape[:2]) for t in spec.tasks}, sample.truth)
    means = {task: np.mean(pairs, axis=0).tolist() for task, pairs in errors.items()}
    return {"network": name, "data": data.description, "metrics": metrics.compute(), "errors": means}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in markdown: per task its metric, then the two errors in percent."""
    tasks = list(rows[0]["errors"])
    head = [f"{task}: {METRICS[task][0].name}; off from before; from itself in float" for task in tasks]
    lines = [" | ".join(["", *head]), " | ".join(["---"] * (len(head) + 1))]
    for line in rows:
        cells = []
        for task in tasks:
            first, same = (100 * error for error in line["errors"][task])
            cells.append(f"{line['metrics'][task][METRICS[task][0].name]:.4g}; {first:.2f} %; {same:.2f} %")
        lines.append(" | ".join([line["network"], *cells]))
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
