"""Measure the shipped weights of a model of the zoo, and record it in models/NAME/card.json for the model card.

    python tools/measure_zoo.py NAME [--data rooms:seed=7,count=200] --training training.json

``training.json``: the facts of the training run, label -> text or number, in the order of the card, such as
``{"data": "rooms:seed=1,count=2400", "steps": 1700, "hardware": "one core of ...", "hours": 1.5}``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emadeploy import nets, zoo
from emadeploy.cli.network import open_network
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import DataError, EmadeployError, one_line
from emadeploy.data.source import open_data, parse_data
from emadeploy.evaluate.records import write_record
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime.machine import usable_cores

SCHEMA = 1
#: Rooms that no training of ours uses: another seed, and of the split 'val'.
HELD_OUT = "rooms:seed=7,count=200"


def measure(folder: Path, data: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about ``folder``/weights: the content of card.json. Raises EmadeployError."""
    weights = folder / "weights"
    checkpoint = nets.read_checkpoint(weights)
    parameters = sum(parameter.numel() for parameter in checkpoint.model().parameters())
    spec = str(parse_data(data))
    with progress("rendering") as report:
        dataset = open_data(spec, split="val", workers=usable_cores(), progress=report)
    opened = open_network(weights)
    with progress("evaluating") as report:
        record = evaluate(opened.predict, dataset, opened.spec.tasks, report)
    stored = checkpoint.files["model.safetensors"]
    return {
        "schema": SCHEMA,
        "input": list(checkpoint.spec.input.size),
        "parameters": parameters,
        "weights": {
            "bytes": stored.bytes,
            "sha256": stored.sha256,
            "dtype": checkpoint.dtype,
            "step": checkpoint.step,
        },
        "training": dict(training),
        "accuracy": {
            "data": record["data"],
            "frames": record["frames"],
            "command": f"emadeploy eval models/{folder.name}/weights --data {spec}",
            "tasks": record["tasks"],
        },
        "versions": dict(checkpoint.versions),
    }


def read_training(path: Path) -> dict[str, Any]:
    """Return the facts in a training.json; raises DataError where it is not one."""
    wanted = "expected json: labels to texts or numbers"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {wanted}") from None
    if not isinstance(facts, dict) or not all(isinstance(value, (str, int, float)) for value in facts.values()):
        raise DataError(f"{path} is not a record of a training; {wanted}")
    return facts


def _sizes(folder: Path, digest: str) -> dict[str, Any]:
    """Return {'sizes': rows} of tools/measure_sizes.py for the weights with that digest; empty where there are none."""
    path = folder / "card.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = [row for row in facts.get("sizes", []) if row["weights_sha256"] == digest]
    return {"sizes": rows} if rows else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="a model of the zoo")
    parser.add_argument("--data", default=HELD_OUT, help=f"[default: {HELD_OUT}]")
    parser.add_argument("--training", type=Path, required=True, metavar="FILE", help="the facts of the training run")
    parser.add_argument("--models", type=Path, default=zoo.assets("models"), help="the folder of the models")
    asked = parser.parse_args(arguments)
    folder = asked.models / asked.name
    try:
        facts = measure(folder, asked.data, read_training(asked.training))
        # What was measured of these weights at several sizes stays.
        write_record(folder / "card.json", {**facts, **_sizes(folder, facts["weights"]["sha256"])})
    except EmadeployError as error:
        print(f"measure_zoo: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"{folder / 'card.json'}: now run python tools/model_cards.py {asked.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
