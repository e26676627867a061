"""Compare the networks that tools/reproduce_rooms.sh trained: docs/results.json, and docs/results.md from it.

    python tools/rooms_results.py FOLDER --seeds "0 1"     reads FOLDER/NETWORK-seedN/{metrics.json,run.json,last}
    python tools/rooms_results.py --check                  write nothing, exit 1 where docs/results.md is stale

Multi-task gain (delta_m, primary metric of each task) is over `stl` of the same seed. Multiply-accumulates are those of
one frame in evaluation, counted by torch.utils.flop_counter: convolutions and matrix products, nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
#: In the order of the table; gains are over the first, in the primary metric of each task, which is what is shown.
NETWORKS = ("stl", "hps", "emanet", "m_emanet")
NAMES = {
    "stl": "`stl`, one network per task",
    "hps": "`hps`, one backbone, a head per task",
    "emanet": "`emanet`, single scale",
    "m_emanet": "`m_emanet`, multi scale",
}


def main() -> int:
    """Write the record and the page, or check the page, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seeds", default="0", help="separated by spaces")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        fresh = PAGE.read_text(encoding="utf-8") == page(json.loads(RECORD.read_text(encoding="utf-8")))
        print(f"{PAGE} is {'fresh' if fresh else f'stale: run python {Path(__file__).name} FOLDER'}")
        return 0 if fresh else 1
    if arguments.folder is None:
        parser.error("FOLDER is missing: the one that tools/reproduce_rooms.sh wrote")
    record = collect(arguments.folder, [int(seed) for seed in arguments.seeds.split()])
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(record), encoding="utf-8")
    print(table(record))
    return 0


def collect(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the record of the runs in ``folder``. Raises SystemExit where one is missing or differs from the rest."""
    from emadeploy.evaluate.records import read_record
    from emadeploy.runtime.machine import describe_machine

    runs = {network: [folder / f"{network}-seed{seed}" for seed in seeds] for network in NETWORKS}
    settings, held_out = _in_common([run for own in runs.values() for run in own], folder)
    rows: list[dict[str, Any]] = []
    for network, own in runs.items():
        records = [read_record(run / "metrics.json") for run in own]
        rows.append({"network": network, **_cost(own[0] / "last"), "runs": [dict(r["tasks"]) for r in records]})
    machine = {**describe_machine(), **_gpu()}
    return {
        "schema": 1,
        "settings": settings,
        "seeds": list(seeds),
        "held_out": held_out,
        "machine": {key: machine[key] for key in ("cpu", "architecture", "gpu") if key in machine},
        "rows": _with_gains(rows),
    }


def _gpu() -> dict[str, str]:
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _in_common(runs: Sequence[Path], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what all runs were trained with, and what they were judged on."""
    missing = [str(run) for run in runs if not (run / "metrics.json").is_file()]
    if missing:
        raise SystemExit(f"no metrics in {', '.join(missing)}: run tools/reproduce_rooms.sh {folder} first")
    common, held_out = _settings(runs[0]), _held_out(runs[0])
    for run in runs[1:]:
        if (own := _settings(run)) != common:
            raise SystemExit(f"{run} was trained with {own}, the others with {common}: not comparable")
        if (judged := _held_out(run)) != held_out:
            raise SystemExit(f"{run} was judged on {judged}, the others on {held_out}: not comparable")
    return common, held_out


def _settings(run: Path) -> dict[str, Any]:
    """What every run must share: all that it was asked for, but for the network and the seed."""
    asked = json.loads((run / "run.json").read_text(encoding="utf-8"))
    spec = asked["spec"]
    return {
        "train": asked["train_data"],
        "steps": asked["steps"],
        "size": [spec["input"]["height"], spec["input"]["width"]],
        "recipe": {key: spec["train"][key] for key in ("batch_size", "learning_rate", "schedule", "precision")},
    }


def _held_out(run: Path) -> dict[str, Any]:
    from emadeploy.evaluate.records import read_record

    record = read_record(run / "metrics.json")
    return {"data": record["data"], "frames": record["frames"]}


def _cost(checkpoint: Path) -> dict[str, float]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from emadeploy import nets

    read = nets.read_checkpoint(checkpoint)
    model = read.model().eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, *read.spec.input.size))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gmac": counter.get_total_flops() / 2e9,
    }


def _with_gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from emadeploy.evaluate.delta import delta_m

    base = rows[0]["runs"]
    return [
        {**row, "delta_m": [delta_m(own, single) for own, single in zip(row["runs"], base, strict=True)]}
        for row in rows
    ]


def table(record: Mapping[str, Any]) -> str:
    """Return the table in Markdown: one line per network, means over the seeds (with the range of delta_m)."""
    head = ("", "mIoU, %", "depth, absolute error m", "normals, mean angle °", "delta_m, %", "parameters", "GMAC")
    lines = [head, ("---",) * len(head)]
    for row in record["rows"]:
        gains = row["delta_m"]
        spread = f" ({min(gains):+.2f} to {max(gains):+.2f})" if len(gains) > 1 else ""
        lines.append(
            (
                NAMES[row["network"]],
                f"{_mean(row, 'semseg', 'miou'):.2f}",
                f"{_mean(row, 'depth', 'abs'):.4f}",
                f"{_mean(row, 'normals', 'mean'):.2f}",
                "" if row["network"] == NETWORKS[0] else f"{statistics.mean(gains):+.2f}{spread}",
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['gmac']:.2f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(row: Mapping[str, Any], task: str, metric: str) -> float:
    return statistics.mean(run[task][metric] for run in row["runs"])


def page(record: Mapping[str, Any]) -> str:
    """Return docs/results.md."""
    asked, held_out, machine = record["settings"], record["held_out"], record["machine"]
    recipe, size = asked["recipe"], "{} x {}".format(*asked["size"])
    seeds = record["seeds"]
    runs = f"the mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    chance = "" if len(seeds) > 1 else "; and with one seed nobody knows which part of a difference is chance"
    return f"""# The rooms table

<!-- Written by tools/rooms_results.py from docs/results.json: run tools/reproduce_rooms.sh to make both anew. -->

Four networks, trained alike and judged alike on **made rooms** (synthetic; rendered by emadeploy), from random weights:

{table(record)}

- Trained: {asked["steps"]} steps of {recipe["batch_size"]} frames of `{asked["train"]}`, {size}, Adam
  {recipe["learning_rate"]:g}, {recipe["schedule"]}, {recipe["precision"]}; {runs}. The last checkpoint is judged.
- Judged: {held_out["frames"]} frames of `{held_out["data"]}`, in none of the trainings.
- delta_m: mean gain over `stl` in the metrics shown, all tasks alike; above zero is better.
- GMAC: multiply-accumulates of one frame at {size}, in convolutions and matrix products, CTAL in linear form.
- Made by `tools/reproduce_rooms.sh` on an {machine["cpu"]} ({machine["architecture"]}), {machine.get("gpu", "no GPU")}.

**What it tells, and what not.** A training this short and small, on made data, shows that the four networks train and
are compared by one command. It is far from converged, so the order of the networks here does not test the paper's
claim{chance}.
For that, train the recipes of the zoo on NYUv2 or Cityscapes ([training.md](training.md)).
"""


if __name__ == "__main__":
    sys.exit(main())
