"""Write models/NAME/README.md, the model card, from model.yml and, where it is there, card.json (measured facts).

    python tools/model_cards.py [--check] [NAME ...]

``--check`` writes nothing and exits 1 where a card is stale, or was measured on other weights than those beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emadeploy import zoo
from emadeploy.calibrate.budgets import Budget
from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.spec import CtalSpec, ModelSpec, TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.evaluate.metrics import METRICS, Metric

NETWORKS = {
    "emanet": "EMA-Net: one backbone, a first answer per task at 1/4 of the image, cross-task affinity learning "
    "(CTAL) over them, a second answer per task",
    "m_emanet": "EMA-Net, multi scale: a first answer per task at each of four scales, one CTAL, a second answer",
    "stl": "single-task learning: a whole network per task, the baseline that multi-task gains are counted against",
    "hps": "hard parameter sharing: one backbone, one head per task and nothing between them, the multi-task baseline",
}
BACKBONES = {"hrnet_w18_small_v2": "HRNet-W18-Small-v2, this project's own implementation"}
DATA = {
    "rooms": "made rooms (rendered by emadeploy, exact truth)",
    "nyuv2": "NYUv2 as preprocessed for MTAN, 288 x 384",
    "cityscapes": "Cityscapes as preprocessed for MTAN, 128 x 256",
    "cityscapes-7": "Cityscapes as preprocessed for MTAN, 128 x 256, labels of seven categories",
    "pascal-context": "PASCAL-Context",
}
#: Data that `emadeploy train` reads.
TRAINABLE = {
    "rooms": "rooms:seed=1,count=2000",
    **{name: f"{name}:DIR" for name in ("nyuv2", "cityscapes", "cityscapes-7", "pascal-context")},
}
SHAPES = {"semseg": "(H, W) class", "human_parts": "(H, W) class", "normals": "(H, W, 3)"}
BETTER = {True: "higher", False: "lower"}


def card(spec: ModelSpec, folder: Path) -> str:
    """Return the text of the model card of ``spec``, whose folder is ``folder``."""
    facts = read_facts(folder)
    has_weights = (folder / "weights" / "checkpoint.json").is_file()
    parts = [
        f"# {spec.name}",
        "<!-- Written by tools/model_cards.py from model.yml and card.json: change those, and run it again. -->",
        spec.description,
        *_network(spec, facts),
        *_tasks(spec),
        *_weights(spec, facts, has_weights=has_weights),
        *(_measured(spec, facts) if facts else ["## Accuracy", "Not measured: no weights of this model ship."]),
        *_recipe(spec),
        *_licence(spec, has_weights=has_weights),
    ]
    return "\n\n".join(parts) + "\n"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return the measured facts in card.json; ``None`` where there are none."""
    path = folder / "card.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def problems(folder: Path) -> list[str]:
    """Return what is stale about the card in ``folder``, in words."""
    found = []
    spec, readme, facts = zoo.load_spec(folder / "model.yml"), folder / "README.md", read_facts(folder)
    if not readme.is_file() or readme.read_text(encoding="utf-8") != card(spec, folder):
        found.append(f"{readme} is stale: run python tools/model_cards.py {folder.name}")
    record = folder / "weights" / "checkpoint.json"
    if facts and record.is_file():
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        digest = files["model.safetensors"]["sha256"]
        if digest != facts["weights"]["sha256"]:
            found.append(f"{folder}/card.json was measured on other weights: run python tools/measure_zoo.py")
        stale = [_size(row["size"]) for row in facts.get("sizes", []) if row["weights_sha256"] != digest]
        if stale:
            found.append(
                f"{folder}/card.json has {', '.join(stale)} of other weights: run python tools/measure_sizes.py"
            )
    elif facts:
        found.append(f"{folder}/card.json tells of weights that are not there")
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _network(spec: ModelSpec, facts: Mapping[str, Any] | None) -> Iterator[str]:
    size = spec.input
    rows: list[Sequence[object]] = [
        ("network", f"`{spec.network}`: {NETWORKS[spec.network]}"),
        ("backbone", f"`{spec.backbone}`: {BACKBONES.get(spec.backbone, 'from the timm library')}"),
        ("input", f"RGB, {size.height} x {size.width}, {_normalisation(spec)}; frames of any size are resized to it"),
        ("made for", DATA.get(spec.data, spec.data or "any data")),
    ]
    if spec.ctal.stride != CtalSpec().stride:
        rows.append(("CTAL", f"and the answers around it, at 1/{spec.ctal.stride} of the image instead"))
    if facts:
        rows.append(("parameters", f"{facts['parameters'] / 1e6:.2f} million"))
        if tuple(facts["input"]) != size.size:
            height, width = facts["input"]
            rows.append(("weights' own input", f"{height} x {width}"))
    yield table(("", ""), rows)


def _normalisation(spec: ModelSpec) -> str:
    if (spec.input.mean, spec.input.std) == ((0, 0, 0), (1, 1, 1)):
        return "values in [0, 1]"
    return f"values in [0, 1], less {list(spec.input.mean)}, over {list(spec.input.std)}"


def _tasks(spec: ModelSpec) -> Iterator[str]:
    yield "## What it answers"
    columns = ("task", "map", "type", "unit", "direction", "frame", "no answer")
    yield table(columns, [_task_row(task) for task in spec.tasks])
    for task in spec.tasks:
        if task.class_names:
            yield f"Classes of {task.name}, from 0: {', '.join(task.class_names)}."


def _task_row(task: TaskSpec) -> tuple[object, ...]:
    kind = KINDS[task.kind]
    unit = task.unit or f"one of {task.channels} classes"
    words = [str(word).replace("_", " ") if word else "" for word in (unit, task.direction, task.frame)]
    none = "" if task.invalid is None else f"{task.invalid:g}"
    return (task.name, SHAPES.get(task.kind, "(H, W)"), kind.dtype, *words, none)


def _weights(spec: ModelSpec, facts: Mapping[str, Any] | None, *, has_weights: bool) -> Iterator[str]:
    yield "## Weights"
    if has_weights:
        yield f"They ship with emadeploy, in `models/{spec.name}/weights`."
        if facts:
            stored = facts["weights"]
            rows = [
                ("size", f"{stored['bytes'] / 1e6:.1f} MB, {stored['dtype']}"),
                ("SHA-256", f"`{stored['sha256']}`"),
                ("steps", stored["step"]),
            ]
            yield table(("", ""), rows)
        targets = ("onnxruntime-fp32", "openvino-int8")
        lines = "\n".join(f"emadeploy export {spec.name} --target {target}" for target in targets)
        yield f"```\n{lines}\n```"
        return
    checkpoint = f"runs/{spec.name}/best"
    if spec.data == "rooms":
        yield "None are here. Train them:"
        yield f"```\nemadeploy train --model {spec.name} --data {TRAINABLE['rooms']}\n```"
    else:
        yield "None ship. Bring the authors', with entries in the published names; any that do not fit are named:"
        yield f"```\nemadeploy import FILE --model {spec.name} -o {checkpoint}\n```"
        yield from _how_to_train(spec)
    yield "Then:"
    yield f"```\nemadeploy export {checkpoint} --target onnxruntime-fp32\n```"


def _how_to_train(spec: ModelSpec) -> Iterator[str]:
    if spec.data in TRAINABLE:
        yield "Or train them. The paper starts from ImageNet weights of the backbone, FILE, to be downloaded apart:"
        yield f"```\nemadeploy train --model {spec.name} --data {TRAINABLE[spec.data]} --backbone FILE\n```"
    else:
        yield f"Training waits for a reader of {spec.data.capitalize()}, which comes with a later version."


def _measured(spec: ModelSpec, facts: Mapping[str, Any]) -> Iterator[str]:
    accuracy = facts["accuracy"]
    yield "## Accuracy"
    yield f"On {accuracy['frames']} frames of `{accuracy['data']}`, none of them seen in training:"
    rows = []
    for task, row in accuracy["tasks"].items():
        for metric in METRICS[task]:
            if metric.name in row:
                unit = spec.task(task).unit if metric.unit == "unit" else metric.unit
                rows.append((task, metric.name, f"{row[metric.name]:.4g}", unit, BETTER[metric.higher_is_better]))
    yield table(("task", "metric", "value", "unit", "better"), rows)
    yield f"Measured in float32 by PyTorch, with\n\n```\n{accuracy['command']}\n```"
    if facts.get("sizes"):
        yield from _sizes(spec, facts["sizes"], tuple(facts["input"]))
    yield "## Training"
    yield table(("", ""), [(name.replace("_", " "), value) for name, value in facts["training"].items()])
    if spec.data == "rooms":
        yield "## Limits"
        yield (
            "Trained on made rooms only: it shows how the toolkit works and lets speed, memory and the cost of each "
            "precision be measured on a network that has learnt something. `emadeploy demo` shows it on "
            "photographs, as it is; train on data of the place where it is to run."
        )


def _sizes(spec: ModelSpec, rows: Sequence[Mapping[str, Any]], trained: tuple[int, ...]) -> Iterator[str]:
    yield "## Other sizes"
    yield (
        f"Trained at {_size(trained)}, and exported at other sizes with `emadeploy export {spec.name} --size HxW`: the "
        "spatial map of fusion kernels is resized, the rest of the network takes any size. Nothing is trained anew, so "
        "what a size costs is measured on rooms rendered at that size, not assumed. Each cell: float32, CTAL exact / "
        "OpenVINO int8, CTAL on a basis."
    )
    primary = [(task, _judged(task)) for task in rows[0]["accuracy"]["float32"]]
    head = ["image", "rooms"] + [
        f"{task} {m.name}{', ' + m.unit if m.unit else ''} ({BETTER[m.higher_is_better]})" for task, m in primary
    ]
    lines = []
    for row in rows:
        float32, int8 = row["accuracy"]["float32"], row["accuracy"]["int8"]
        cells = [f"{float32[task][m.name]:.4g} / {int8[task][m.name]:.4g}" for task, m in primary]
        lines.append([_size(row["size"]) + " (trained)" * (tuple(row["size"]) == trained), row["frames"], *cells])
    yield table(head, lines)
    yield (
        f"The published form holds {len(spec.tasks) + 1} matrices of N x N float32 numbers, one per task and their "
        "mixture, with N = pixels / 16, and about three times that on its way:"
    )
    head = ["image", "published: affinities", "on its way", "its time", "float32, exact", "int8, basis", "speed-up"]
    yield table([*head, "peak memory: published", "float32", "int8"], [_speed(row) for row in rows])
    yield "\n".join(f"- {_measured_by(row)}" for row in rows)


def _judged(task: str) -> Metric:
    """The metric that a budget of the task is about."""
    name = Budget.of(task).metric
    return next(metric for metric in METRICS[task] if metric.name == name)


def _size(size: Sequence[int]) -> str:
    return "{} x {}".format(*size)


def _memory(megabytes: float) -> str:
    return f"{megabytes:.3g} MB" if megabytes < 1e3 else f"{megabytes / 1e3:.3g} GB"


def _speed(row: Mapping[str, Any]) -> list[str]:
    latency, memory = row["latency_ms"], row["peak_memory_mb"]
    held = [_memory(row[name]) for name in ("affinities_mb", "on_the_way_mb")]
    forms = ("published", "float32", "int8")
    # What does not fit was not run: no number, and no ratio to it.
    times = [f"{latency[form]['p50']:.1f} ms" if form in latency else "does not fit" for form in forms]
    peaks = [_memory(memory[form]) if form in memory else "does not fit" for form in forms]
    speedup = "" if row["speedup"] is None else f"{row['speedup']:.1f} x"
    return [_size(row["size"]), *held, *times, speedup, *peaks]


def _measured_by(row: Mapping[str, Any]) -> str:
    machine = row["machine"]
    memory = "" if machine["memory_mb"] is None else f", {machine['memory_mb'] / 1024:.0f} GB"
    return (
        f"{_size(row['size'])}: {row['date']}, {row['threads']} threads of an {machine['cpu']} "
        f"({', '.join(machine['flags'])}{memory}), medians of {row['rounds']} calls in turns, one process each, by "
        f"`{row['command']}`."
    )


def _recipe(spec: ModelSpec) -> Iterator[str]:
    recipe = spec.train
    weights = ", ".join(f"{task.name} {task.weight:g}" for task in spec.tasks)
    learnt = "learnt (homoscedastic uncertainty)"
    rise = f", the rate rising over the first {recipe.warm_up_epochs:g}" if recipe.warm_up_epochs else ""
    rows = [
        ("optimiser", f"Adam, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}"),
        (
            "schedule",
            f"{recipe.schedule.replace('_', ' ')}, {recipe.epochs} epochs of batches of {recipe.batch_size}{rise}",
        ),
        ("task weights", learnt if recipe.weighting == "uncertainty" else weights),
        ("augmentation", ", ".join(_augmentation(recipe)) or "none"),
    ]
    yield "## Recipe"
    yield "What `emadeploy train` does unless told otherwise:"
    yield table(("", ""), rows)


def _augmentation(recipe: TrainSpec) -> Iterator[str]:
    if recipe.horizontal_flip:
        yield "horizontal flip"
    if recipe.random_scale > 1:
        yield f"scale up to {recipe.random_scale:g}"
    if recipe.colour_jitter:
        yield f"colours by up to {recipe.colour_jitter:.0%}"


def _licence(spec: ModelSpec, *, has_weights: bool) -> Iterator[str]:
    yield "## Licence"
    if has_weights or spec.data == "rooms":
        yield "Apache-2.0, code and weights."
    else:
        yield (
            "Apache-2.0 for what is here. Weights that you import keep the licence of their authors, and the data set "
            "has terms of its own."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the cards; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="models [default: all]")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a card is stale")
    parser.add_argument("--models", type=Path, default=zoo.assets("models"), help="the folder of the models")
    asked = parser.parse_args(arguments)
    names = asked.names or sorted(path.parent.name for path in asked.models.glob("*/model.yml"))
    folders = [asked.models / name for name in names]
    if asked.check:
        stale = [problem for folder in folders for problem in problems(folder)]
        print("\n".join(stale) or f"{len(folders)} model cards are fresh")
        return 1 if stale else 0
    for folder in folders:
        text = card(zoo.load_spec(folder / "model.yml"), folder)
        (folder / "README.md").write_text(text, encoding="utf-8")
        print(folder / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
