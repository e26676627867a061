"""Training throughput and peak memory: the linear CTAL against the published form, in one run on this machine.

    python tools/bench_train.py [--model emanet-nyuv2] [--size 288x384] [--batch 4] [--steps 8] [--rounds 2]
                                [--precision fp32|bf16] [--json FILE] [--check]

Each form trains in a process of its own, as their peaks of memory cannot be told apart in one, and the forms take turns
(`--rounds` times), so that a machine that slows down slows both. A step is forward, all losses, backward and Adam on
random frames. What is compared: images per second, the best round of each form, and the peak memory of the process
(on a GPU what PyTorch has allocated there). `--check` exits 1 where the linear form is under 2.2 x as fast, or takes
more than half the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emadeploy import nets, zoo
from emadeploy.contract.spec import ModelSpec
from emadeploy.train.losses import MultiTaskLoss

FORMS = {"exact": "linear", "affinity": "as published"}
#: What the linear form is to reach against the published one.
FASTER, MEMORY = 2.2, 0.5
WARM_UP = 1


def main() -> int:
    """Measure both forms, print the table, and return the exit status."""
    arguments = parse_arguments()
    if arguments.form:
        print(json.dumps(measure(arguments)))
        return 0
    rounds: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    for _ in range(arguments.rounds):
        for form, found in rounds.items():
            found.append(in_a_process(form))
    record = compare(rounds, arguments)
    print(table(record))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    reached = record["faster"] >= FASTER and record["memory"] <= MEMORY
    return 1 if arguments.check and not reached else 0


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emanet-nyuv2")
    parser.add_argument("--size", default="288x384", metavar="HxW")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--form", choices=tuple(FORMS), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(form: str) -> dict[str, Any]:
    """Measure one form in a new process with the same arguments."""
    done = subprocess.run([sys.executable, *sys.argv, "--form", form], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the {FORMS[form]} form ended with status {done.returncode}; was there memory enough for it?")
    return json.loads(done.stdout)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train some steps in this process; returns seconds per step, and bytes before and at the peak."""
    height, width = map(int, arguments.size.split("x"))
    spec = zoo.load_spec(arguments.model)
    spec = replace(
        spec, ctal=replace(spec.ctal, form=arguments.form), input=replace(spec.input, height=height, width=width)
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = nets.build(spec).to(device, memory_format=torch.channels_last)
    loss = MultiTaskLoss(spec.tasks, spec.train.weighting).to(device)
    optimiser = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=1e-4)
    image_B3HW = torch.rand(arguments.batch, 3, height, width, device=device)
    truth = random_truth(spec, arguments.batch, device)
    before, seconds = memory(device), []
    for _ in range(WARM_UP + arguments.steps):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16"):
            raw = model(image_B3HW)
        total, _ = loss(raw, truth)
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"device": name, "seconds": seconds[WARM_UP:], "before": before, "peak": memory(device)}


def random_truth(spec: ModelSpec, batch: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a truth for every task, as losses take it."""
    size, truth = spec.input.size, {}
    for task in spec.tasks:
        if task.kind == "depth":
            truth[task.name] = torch.rand(batch, 1, *size) + 0.5
        elif task.kind == "normals":
            truth[task.name] = torch.nn.functional.normalize(torch.randn(batch, 3, *size), dim=1)
        else:
            classes = task.channels if task.kind in ("semseg", "human_parts") else 2
            truth[task.name] = torch.randint(0, classes, (batch, *size))
    return {name: target.to(device) for name, target in truth.items()}


def memory(device: torch.device) -> int:
    """Return the peak of memory so far, bytes: of the GPU's where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def compare(rounds: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the record of a run: both forms, and how the linear one stands to the published one."""
    forms = {
        form: {
            "images_per_second": arguments.batch / min(statistics.median(one["seconds"]) for one in found),
            "rounds": [arguments.batch / statistics.median(one["seconds"]) for one in found],
            "peak_mb": max(one["peak"] for one in found) / 1e6,
            "before_mb": max(one["before"] for one in found) / 1e6,
        }
        for form, found in rounds.items()
    }
    linear, published = forms["exact"], forms["affinity"]
    asked = ("model", "size", "batch", "steps", "rounds", "precision")
    return {
        "schema": 1,
        **{name: getattr(arguments, name) for name in asked},
        "device": rounds["exact"][0]["device"],
        "torch": str(torch.__version__),
        "cores": os.cpu_count(),
        "forms": forms,
        "faster": linear["images_per_second"] / published["images_per_second"],
        "memory": linear["peak_mb"] / published["peak_mb"],
    }


def table(record: dict[str, Any]) -> str:
    """Return the record as a table in Markdown, with what it is to be."""
    lines = [
        f"{record['model']}, {record['size']}, batches of {record['batch']}, {record['precision']}, {record['device']}",
        "",
        "| CTAL | images per second | of which rounds | peak memory | before the first step |",
        "|---|---|---|---|---|",
    ]
    for form, found in record["forms"].items():
        rounds = " ".join(f"{one:.2f}" for one in found["rounds"])
        memory_cells = f"{found['peak_mb']:.0f} MB | {found['before_mb']:.0f} MB"
        lines.append(f"| {FORMS[form]} | {found['images_per_second']:.2f} | {rounds} | {memory_cells} |")
    faster = f"{record['faster']:.2f} x as fast (wanted: {FASTER} x)"
    return "\n".join([*lines, "", f"linear: {faster}, {record['memory']:.2f} of the memory (wanted: {MEMORY} at most)"])


if __name__ == "__main__":
    sys.exit(main())
