"""`emadeploy inspect`: everything that an artifact says about itself, and whether its files are intact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.contract.plain import to_plain
from emadeploy.contract.tasks import KINDS
from emadeploy.runtime.trt.record import RECORD_NAME, EngineRecord

#: The numbers of a budget's verdict, in the order of the table.
_JUDGED = ("reference", "obtained", "drop", "allowed")


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by export.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print json.")] = False,
) -> None:
    """Show what an artifact is: model, tasks, target, sizes, digests, parity, accuracy, origin."""
    manifest = Manifest.read(artifact)
    problems = {name: manifest.file_problem(artifact, name) for name in manifest.files}
    engine = _engine(artifact, problems)
    if as_json:
        facts = {"engine": manifest.engine, "untrained": manifest.untrained, "compiled": manifest.compiled}
        facts["compiled_for"] = engine.key.describe() if engine else None
        record = {"schema": 1, "path": str(artifact), **facts, "problems": problems, "manifest": to_plain(manifest)}
        print(json.dumps(record))
    else:
        _print(manifest, problems, engine)
    found = [problem for problem in problems.values() if problem]
    if found:
        raise ArtifactError("; ".join(found))


def _engine(artifact: Path, problems: dict[str, str | None]) -> EngineRecord | None:
    """Return the record of the engine that TensorRT has compiled, if it has; what is wrong with it goes to problems."""
    if not (artifact / RECORD_NAME).exists():
        return None
    try:
        record = EngineRecord.read(artifact)
    except ArtifactError as error:
        problems[RECORD_NAME] = str(error)
        return None
    problems[record.plan] = None
    try:
        record.plan_bytes(artifact)
    except ArtifactError as error:
        problems[record.plan] = str(error)
    return record


def _print(manifest: Manifest, problems: Mapping[str, str | None], engine: EngineRecord | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    model = manifest.model
    console.print(f"[bold]{model.name}[/bold] for [bold]{manifest.target}[/bold]", model.description)
    if manifest.untrained:
        console.print("[bold red]untrained[/bold red]: random weights, good for timing alone; its maps mean nothing")
    if not manifest.compiled:
        console.print("[bold]not compiled[/bold]: a portable graph, to be compiled on its device")
    if engine is not None:
        console.print(f"compiled for {engine.key.describe()}", markup=False)
    if manifest.frame_size is not None:
        height, width = manifest.frame_size
        takes = f"uint8 frames of {height} x {width} alone; it resizes, normalises and decodes inside"
    else:
        takes = f"frames of any size, resized to {model.input.height} x {model.input.width} (height x width)"
    form = manifest.graph.get("ctal", model.ctal.form)  # the graph's own, which an export may choose
    console.print(f"network {model.network}, backbone {model.backbone}, CTAL {form}; takes {takes}")
    for columns, rows in _tables(manifest, problems, engine):
        _print_table(console, columns, rows)
    for task in model.tasks:
        if task.class_names:
            console.print(f"classes of {task.name}, from 0: {', '.join(task.class_names)}", markup=False)


def _tables(
    manifest: Manifest, problems: Mapping[str, str | None], engine: EngineRecord | None
) -> Iterator[tuple[list[str], list[list[str]]]]:
    tasks = []
    for task in manifest.model.tasks:
        invalid = "none" if task.invalid is None else f"{task.invalid:g}"
        unit = task.unit or f"class, of {task.channels}"
        tasks.append([task.name, unit, task.direction or "", task.frame or "", KINDS[task.kind].dtype, invalid])
    yield ["task", "unit", "direction", "frame", "type", "invalid"], tasks
    tensors = [("input", tensor) for tensor in manifest.inputs] + [("output", tensor) for tensor in manifest.outputs]
    rows = [[what, t.name, t.dtype, " x ".join(map(str, t.shape)), t.layout] for what, t in tensors]
    yield ["tensor", "name", "type", "shape", "layout"], rows
    sizes = {name: (record.bytes, record.sha256) for name, record in manifest.files.items()}
    sizes |= {engine.plan: (engine.bytes, engine.sha256)} if engine else {}
    files = [[n, f"{size / 1e6:.2f}", problems[n] or "ok", sha256[:12]] for n, (size, sha256) in sizes.items()]
    yield ["file", "MB", "digest", "sha256"], files
    if manifest.audit:
        yield from _audit(manifest)
    calibration = dict(manifest.calibration or {})
    if budget := calibration.get("budget"):
        yield _budget(budget)
        brief = {name: value for name, value in budget.items() if name not in ("tasks", "history")}
        kept = [f"{unit['unit']} ({unit['section']})" for unit in budget["kept"]]
        calibration["budget"] = {**brief, "kept": kept or "nothing: all in int8"}
    # What is nested in these is up to the stages that write them: shown as it is, key by key.
    facts = []
    for title in ("precision", "asked", "parity", "accuracy", "calibration", "source", "graph", "versions"):
        none = ("not measured" if title in ("parity", "accuracy") else "none", "")
        record = calibration if title == "calibration" else getattr(manifest, title)
        flat = list(_flat(record or {})) or [none]
        facts += [[title if index == 0 else "", key, value] for index, (key, value) in enumerate(flat)]
    yield ["facts", "", ""], facts


def _audit(manifest: Manifest) -> Iterator[tuple[list[str], list[list[str]]]]:
    """What the engine ran in when it was built: shares per branch, and how many convolutions and products."""
    assert manifest.audit is not None
    wanted = TARGETS[manifest.target][1]
    rows = []
    for branch, shares in [*manifest.audit["branches"].items(), ("total", manifest.audit["total"])]:
        asked = "" if branch in ("total", "other") else manifest.asked.get(branch, wanted)
        compute = ", ".join(f"{count} {name}" for name, count in shares["compute"].items())
        rows.append([branch, asked, compute, _percent(shares["layers"]), _percent(shares["time"])])
        # Nothing has run while TensorRT compiled.
        rows[-1].append(f"{shares['microseconds'] / 1e3:.1f}" if shares["time"] else "not measured")
    yield ["audit", "asked", "convolutions and products", "layers", "time", "ms"], rows


def _budget(budget: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What int8 costs each task, and what it may cost."""
    rows = []
    for row in budget["tasks"]:
        numbers = ["nothing" if row[name] is None else f"{row[name]:.4g}" for name in _JUDGED]
        rows.append([row["task"], row["metric"], *numbers, row["unit"], "held" if row["held"] else "over"])
    return ["task", "metric", "in float", "obtained", "drop", "allowed", "unit", "budget"], rows


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:.6g}"
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _print_table(console: Any, columns: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, because names and paths may hold the brackets of rich's markup.
        table.add_row(*map(Text, row))
    console.print(table)
