"""Write the tables of README.md and docs/int8.md from records: nobody types a number into them.

    python tools/readme_table.py            # from docs/targets.json and docs/bound.json
    python tools/readme_table.py demo.json  # the demo's too, from `emadeploy demo --json demo.json`
    python tools/readme_table.py --check    # write nothing, exit 1 where a table is stale

| table | record | made by |
|---|---|---|
| targets, accuracy | docs/targets.json | tools/bench_targets.py |
| bound | docs/bound.json | tools/measure_bound.py |
| demo | given | emadeploy demo --json |
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emadeploy.calibrate.budgets import Budget

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/int8.md")
END = "<!-- /table -->"

Record = Mapping[str, Any]
_METRICS = {"semseg": "mIoU, %", "depth": "relative error", "normals": "mean angle, °"}
_UNITS = {"semseg": "points", "depth": "%", "normals": "°"}
#: What a row of targets may have to reach, and how that is said.
_WANTED: dict[str, Callable[[float], str]] = {
    "speedup": "{:g} x".format,
    "end_to_end": "{:g} x end to end".format,
    "memory_ratio": lambda share: f"1/{1 / share:g} of the memory",
    "times": "at most {:g} x the time".format,
    "memory_mb": "at most {:g} MB".format,
}


def demo(record: Record) -> str:
    """Return the table of the demo, with what it was measured on below it."""
    published, rewritten = record["rows"]
    agreement = record["agreement"]["tasks"]

    def times(name: str) -> str:
        return f"**{rewritten[name]:.1f} x faster**"

    def both(form: str, value: Callable[[Record], float]) -> tuple[str, str]:
        return form.format(value(published)), form.format(value(rewritten))

    memory = published["peak_memory_mb"] / rewritten["peak_memory_mb"]
    rows: list[Sequence[str]] = [
        ("network, median", *both("{:.0f} ms", lambda r: r["latency_ms"]["p50"]), times("speedup")),
        ("frame to maps, median", *both("{:.0f} ms", lambda r: r["end_to_end_ms"]["p50"]), times("speedup_end_to_end")),
        (
            "peak memory of the process",
            *both("{:.0f} MB", lambda r: r["peak_memory_mb"]),
            f"**{memory:.1f} x less**",
        ),
        ("size on disk", *both("{:.1f} MB", lambda r: r["size_mb"]), ""),
        ("semantic labels, mIoU", *both("{:.2f} %", lambda r: r["tasks"]["semseg"]["miou"]), ""),
        ("depth, relative error", *both("{:.4f}", lambda r: r["tasks"]["depth"]["rel"]), ""),
        ("normals, mean angle", *both("{:.2f}°", lambda r: r["tasks"]["normals"]["mean"]), ""),
        ("the two agree: pixels of the same class", "", f"{agreement['semseg']['agreement']:.3f} %", ""),
    ]
    machine = record["machine"]
    weights = "**untrained**" if record["untrained"] else "trained on made rooms"
    below = (
        f"Model `{record['model']}`, {weights}; metrics on {record['frames']} held-out made rooms "
        f"(`{record['data']}`). Measured in turns, {rewritten['latency_ms']['n']} runs each, "
        f"{rewritten['threads']} threads of an {machine['cpu']} ({machine['architecture']}), by "
        "`emadeploy demo --json demo.json`; the ratios are the point, absolute times move from machine to machine."
    )
    return _table(("288 x 384, ONNX Runtime fp32", "published graph", "rewritten", ""), rows) + f"\n\n{below}"


def targets(record: Record) -> str:
    """Return the table of what each engine reaches, with what it was measured on below it."""
    head = ("", "network", "faster", "end to end", "peak memory", "on disk", "budgets", "wanted")
    return f"{_table(head, [_target(row) for row in record['rows']])}\n\n{_measured_on(record)}"


def _target(row: Record) -> list[str]:
    def ratio(name: str) -> str:
        return f"{row[name]:.1f} x" if row.get(name) is not None else ""

    faster = f"{row['times']:.2f} x the time" if "times" in row else ratio("speedup")
    memory = f"{row['peak_memory_mb']:.0f} MB"
    if "memory_ratio" in row and row["memory_ratio"] != 1:
        memory += f" (1/{1 / row['memory_ratio']:.1f})"
    held = {True: "held", False: "**not held**", None: "not judged"}[row["budgets_held"]]
    if row["target"].endswith("fp32"):
        held = ""
    wanted = ", ".join(_WANTED[name](value) for name, value in row["wanted"].items())
    cells = [row["what"], f"{row['latency_ms']['p50']:.1f} ms", faster, ratio("end_to_end")]
    return [*cells, memory, f"{row['size_mb']:.1f} MB", held, wanted]


def accuracy(record: Record) -> str:
    """Return the table of what int8 costs each task, for the rows that were judged."""
    judged = [row for row in record["rows"] if row.get("accuracy")]
    if not judged:
        return "*No row was judged.*"
    tasks = list(judged[0]["accuracy"])
    head = ["", *(f"{task}: {_METRICS.get(task, Budget.of(task).metric)}" for task in tasks), "in higher precision"]
    float32 = judged[0]["float32"]
    rows = [["float32, CTAL exact", *(_value(float32, task) for task in tasks), "everything"]]
    for row in judged:
        drops = [f"{_value(row['accuracy'], task)} ({_worse(row['drops'][task], task)})" for task in tasks]
        rows.append([row["what"], *drops, f"{100 * row['kept_share']:.1f} % of the arithmetic"])
    below = (
        f"On {judged[0]['frames']} held-out rooms (`{judged[0]['data']}`); budgets `{judged[0]['budgets']}`. In "
        f"brackets what was lost; below zero: gained. By `{record['command']}`, {record['date']}."
    )
    return f"{_table(head, rows)}\n\n{below}"


def _value(metrics: Record, task: str) -> str:
    return f"{metrics[task][Budget.of(task).metric]:.4g}"


def _worse(drop: float, task: str) -> str:
    return f"{drop:+.2f} {_UNITS.get(task, 'points')}"


def bound(record: Record) -> str:
    """Return, for each artifact, the work, the bound and the time of every branch."""
    parts = []
    for artifact in record["artifacts"]:
        size = "{} x {}".format(*artifact["size"])
        head = (f"CTAL {artifact['ctal']}, {size}", "GMAC", "bound", "reached", "between")
        lines = [*artifact["branches"].items(), ("**all**", artifact["total"])]
        parts.append(_table(head, [_between(name, each) for name, each in lines]))
    parts.append(
        f"Bound: multiply-accumulates over {record['macs_per_second'] / 1e9:.0f} GMAC/s, what the best int8 3 x 3 "
        f"convolution reaches with {_cores(record)}. Reached: the engine's own clock, layer by layer, when the "
        "artifact was built; what belongs to no branch is `other`. By "
        f"`{record['command']}`, OpenVINO {record['versions']['openvino']}, {record['date']}."
    )
    return "\n\n".join(parts)


def _between(name: str, each: Record) -> list[str]:
    times = [f"{each[key]:.1f} ms" for key in ("bound_ms", "reached_ms")]
    return [name, f"{each['macs'] / 1e9:.1f}", *times, f"{each['reached_ms'] - each['bound_ms']:.1f} ms"]


def _measured_on(record: Record) -> str:
    versions = record["versions"]
    libraries = ", ".join(
        f"{name} {versions[name]}" for name in ("onnxruntime", "openvino", "nncf") if name in versions
    )
    return (
        f"Model `{record['model']}`. Medians of {record['rounds']} calls in turns, one process each, "
        f"{_cores(record)}, {libraries}; by `{record['command']}`, {record['date']}. *Faster*, *end to end* "
        "(`perception(frame)`) and the share of the memory: against the first line, in the same run. "
        "Absolute times move from machine to machine."
    )


def _cores(record: Record) -> str:
    machine = record["machine"]
    return f"{record['threads']} threads of an {machine['cpu']} ({', '.join(machine['flags'])})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


#: Table -> its renderer, the record that it is made from, and what makes that; the demo's record is given by hand.
TABLES: dict[str, tuple[Callable[[Record], str], str, str]] = {
    "targets": (targets, "docs/targets.json", "python tools/bench_targets.py"),
    "accuracy": (accuracy, "docs/targets.json", "python tools/bench_targets.py"),
    "bound": (bound, "docs/bound.json", "python tools/measure_bound.py"),
}


def rendered(name: str, root: Path) -> str:
    """Return the table ``name`` from its record under ``root``; where there is none yet, the line that says so."""
    render, record, command = TABLES[name]
    if not (root / record).is_file():
        return f"*Not measured yet: `{command}` writes {record}, `python tools/readme_table.py` this table.*"
    return render(json.loads((root / record).read_text("utf-8")))


def replaced(text: str, name: str, table: str) -> str:
    """Return ``text`` with ``table`` between the marks of ``name``; raises ValueError where there are none."""
    begin = f"<!-- table: {name} -->"
    before, mark, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"the marks {begin} and {END} are not there")
    return f"{before}{begin}\n{table}\n{END}{after}"


def refreshed(document: Path, root: Path) -> str:
    """Return the text of ``document`` with every table of TABLES that it has made anew."""
    text = document.read_text("utf-8")
    for name in TABLES:
        if f"<!-- table: {name} -->" in text:
            text = replaced(text, name, rendered(name, root))
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace what stands between the marks, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", metavar="DEMO.json", nargs="?", type=Path, help="the record of a demo")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of the documents")
    asked = parser.parse_args(arguments)
    stale: list[str] = []
    for name in DOCUMENTS:
        path = asked.root / name
        text = refreshed(path, asked.root)
        if asked.demo is not None and name == "README.md":
            text = replaced(text, "demo", demo(json.loads(asked.demo.read_text("utf-8"))))
        if text == path.read_text("utf-8"):
            continue
        stale.append(f"{path} is stale: run python tools/readme_table.py")
        if not asked.check:
            path.write_text(text, "utf-8")
            print(f"wrote the tables of {path}")
    if asked.check:
        print("\n".join(stale) or "the tables are fresh")
    return 1 if asked.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
