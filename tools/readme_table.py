"""Write the table of README.md from the record of a demo: `emadeploy demo --json demo.json`.

python tools/readme_table.py demo.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- table: demo -->", "<!-- /table -->"


def table(record: dict[str, Any]) -> str:
    """Return the table in Markdown, with what it was measured on below it."""
    published, rewritten = record["rows"]
    agreement = record["agreement"]["tasks"]

    def row(what: str, first: str, second: str, ratio: str = "") -> str:
        return f"| {what} | {first} | {second} | {ratio} |"

    def times(name: str) -> str:
        return f"**{rewritten[name]:.1f} x faster**"

    def metric(task: str, name: str, form: str) -> tuple[str, str]:
        return form.format(published["tasks"][task][name]), form.format(rewritten["tasks"][task][name])

    memory = published["peak_memory_mb"] / rewritten["peak_memory_mb"]
    lines = [
        "| 288 x 384, ONNX Runtime fp32 | published graph | rewritten | |",
        "|---|---|---|---|",
        row(
            "network, median",
            f"{published['latency_ms']['p50']:.0f} ms",
            f"{rewritten['latency_ms']['p50']:.0f} ms",
            times("speedup"),
        ),
        row(
            "frame to maps, median",
            f"{published['end_to_end_ms']['p50']:.0f} ms",
            f"{rewritten['end_to_end_ms']['p50']:.0f} ms",
            times("speedup_end_to_end"),
        ),
        row(
            "peak memory of the process",
            f"{published['peak_memory_mb']:.0f} MB",
            f"{rewritten['peak_memory_mb']:.0f} MB",
            f"**{memory:.1f} x less**",
        ),
        row("size on disk", f"{published['size_mb']:.1f} MB", f"{rewritten['size_mb']:.1f} MB"),
        row("semantic labels, mIoU", *metric("semseg", "miou", "{:.2f} %")),
        row("depth, relative error", *metric("depth", "rel", "{:.4f}")),
        row("normals, mean angle", *metric("normals", "mean", "{:.2f}°")),
        row("the two agree: pixels of the same class", "", f"{agreement['semseg']['agreement']:.3f} %"),
    ]
    machine = record["machine"]
    weights = "**untrained**" if record["untrained"] else "trained on made rooms"
    below = (
        f"Model `{record['model']}`, {weights}; metrics on {record['frames']} held-out made rooms "
        f"(`{record['data']}`). Measured in turns, {rewritten['latency_ms']['n']} runs each, "
        f"{rewritten['threads']} threads of an {machine['cpu']} ({machine['architecture']}), by "
        "`emadeploy demo --json demo.json`; the ratios are the point, absolute times move from machine to machine."
    )
    return "\n".join([*lines, "", below])


def main() -> None:
    """Replace what stands between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    record = json.loads(parser.parse_args().record.read_text("utf-8"))
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{README} lacks the marks {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n{table(record)}\n{END}{after}", "utf-8")
    print(f"wrote the table of {README}")


if __name__ == "__main__":
    main()
