"""The README cannot rot: its Python runs, its commands exist with the options it shows, its links lead somewhere."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load_tool("readme_table")


def blocks(language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(documents: list[str]) -> list[list[str]]:
    """Return the arguments of every line that calls emadeploy."""
    lines = [line for text in documents for line in text.splitlines() if line.startswith("emadeploy ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def parse(arguments: list[str]) -> None:
    """Parse a command line as emadeploy would, without running it; raises click's UsageError."""
    from emadeploy.cli.app import app

    group = typer.main.get_command(app)
    name, *rest = arguments
    command = group.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest)


@pytest.mark.parametrize("arguments", commands(blocks("sh")), ids=" ".join)
def test_commands_exist_with_the_options_shown(arguments):
    parse(arguments)


def test_there_are_five_examples_and_a_wrong_one_would_be_seen():
    assert "in five examples" in README
    assert [len(commands([block])) for block in blocks("sh") if commands([block])] == [5, 4, 3, 2]
    with pytest.raises(Exception, match="No such option"):
        parse(["export", "x", "--targte", "onnxruntime-fp32"])
    with pytest.raises(KeyError):
        parse(["exprot"])


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_runtime_example_runs(make_artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_artifact().rename(tmp_path / "mine.openvino-int8")  # the engine is chosen from the manifest
    example = next(block for block in blocks("python") if "perception(frame)" in block)
    names = {"frame": np.zeros((48, 80, 3), np.uint8)}
    exec(example, names)
    assert names["result"].depth.shape == (48, 80)


def test_the_nets_example_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from emadeploy import nets, zoo

    monkeypatch.chdir(tmp_path)
    spec = zoo.load_spec("hps-nyuv2")
    nets.save_checkpoint(tmp_path / "runs" / "mine" / "best", nets.build(spec), spec, step=0, metrics={})
    example = next(block for block in blocks("python") if "nets.load" in block)
    names = {"image_B3HW": torch.zeros(1, 3, *spec.input.size)}
    exec(example, names)
    assert names["maps"]["semseg"].shape == (1, 13, 288, 384)


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "calibration/README.md", "docs/ctal.md", "docs/int8.md"]
)
def test_links_to_files_lead_somewhere(document):
    folder = (ROOT / document).parent
    text = (ROOT / document).read_text("utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    missing = [target for target in targets if not (folder / target).exists()]
    assert not missing


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/ctal.md", "docs/int8.md"])
def test_files_named_in_documents_exist(document):
    named = re.findall(r"(?:emadeploy|tools|tests)/[\w/]+\.(?:py|txt)", (ROOT / document).read_text("utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tables_are_fresh(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


TARGETS = {
    "command": "python tools/bench_targets.py",
    "date": "2026-11-22",
    "machine": {"cpu": "SomeCPU", "cores": 2, "flags": ["avx512_vnni"], "memory_mb": 24105},
    "threads": 2,
    "rounds": 11,
    "model": "small",
    "versions": {"openvino": "2026.4.1", "python": "3.11"},
    "rows": [
        {
            "what": "as published, ONNX Runtime fp32",
            "target": "onnxruntime-fp32",
            "wanted": {},
            "latency_ms": {"p50": 997.04},
            "speedup": 1.0,
            "end_to_end": 1.0,
            "memory_ratio": 1.0,
            "peak_memory_mb": 1808.0,
            "size_mb": 24.4,
            "budgets_held": None,
        },
        {
            "what": "OpenVINO int8",
            "target": "openvino-int8",
            "wanted": {"speedup": 6.5, "memory_ratio": 1 / 6},
            "latency_ms": {"p50": 141.0},
            "speedup": 7.11,
            "end_to_end": 6.98,
            "memory_ratio": 0.125,
            "peak_memory_mb": 226.0,
            "size_mb": 8.4,
            "budgets_held": True,
            "budgets": "semseg=1.0,depth=2.0%",
            "kept_share": 0.031,
            "data": "rooms:seed=7 val",
            "frames": 200,
            "drops": {"semseg": -0.1, "depth": 1.08},
            "accuracy": {"semseg": {"miou": 33.38}, "depth": {"abs": 0.5, "rel": 0.2343}},
            "float32": {"semseg": {"miou": 33.28}, "depth": {"abs": 0.6, "rel": 0.2318}},
        },
        {
            "what": "OpenVINO int8, large",
            "target": "openvino-int8",
            "wanted": {"times": 5.2, "memory_mb": 600},
            "latency_ms": {"p50": 458.0},
            "times": 4.8,
            "peak_memory_mb": 355.0,
            "size_mb": 8.5,
            "budgets_held": None,
        },
    ],
}
BOUND = {
    "command": "python tools/measure_bound.py",
    "date": "2026-11-22",
    "machine": {"cpu": "SomeCPU", "cores": 2, "flags": ["avx512_vnni"]},
    "threads": 2,
    "macs_per_second": 450e9,
    "versions": {"openvino": "2026.4.1"},
    "artifacts": [
        {
            "size": [288, 384],
            "ctal": "basis",
            "branches": {"ctal": {"macs": 19.4e9, "bound_ms": 43.1, "reached_ms": 55.8}},
            "total": {"macs": 30.7e9, "bound_ms": 68.2, "reached_ms": 97.4},
        }
    ],
}


def test_tables_say_what_was_measured():
    lines = tables.targets(TARGETS).splitlines()
    assert lines[2:5] == [
        "| as published, ONNX Runtime fp32 | 997.0 ms | 1.0 x | 1.0 x | 1808 MB | 24.4 MB |  |  |",
        "| OpenVINO int8 | 141.0 ms | 7.1 x | 7.0 x | 226 MB (1/8.0) | 8.4 MB | held | 6.5 x, 1/6 of the memory |",
        "| OpenVINO int8, large | 458.0 ms | 4.80 x the time |  | 355 MB | 8.5 MB | not judged "
        "| at most 5.2 x the time, at most 600 MB |",
    ]
    assert "2 threads of an SomeCPU (avx512_vnni), openvino 2026.4.1; by `python tools/bench_targets.py`" in lines[-1]

    lines = tables.accuracy(TARGETS).splitlines()
    assert lines[2:4] == [
        "| float32, CTAL exact | 33.28 | 0.2318 | everything |",
        "| OpenVINO int8 | 33.38 (-0.10 points) | 0.2343 (+1.08 %) | 3.1 % of the arithmetic |",
    ]
    assert "On 200 held-out rooms (`rooms:seed=7 val`); budgets `semseg=1.0,depth=2.0%`" in lines[-1]

    lines = tables.bound(BOUND).splitlines()
    assert lines[2:4] == [
        "| ctal | 19.4 | 43.1 ms | 55.8 ms | 12.7 ms |",
        "| **all** | 30.7 | 68.2 ms | 97.4 ms | 29.2 ms |",
    ]
    assert "450 GMAC/s" in lines[-1]


def test_the_table_of_the_demo_compares_both_graphs():
    def row(ms: float, mb: float) -> dict:
        tasks = {"semseg": {"miou": 31.147}, "depth": {"rel": 0.22041}, "normals": {"mean": 26.578}}
        times = {"latency_ms": {"p50": ms, "n": 11}, "end_to_end_ms": {"p50": ms + 4}, "threads": 2}
        return {
            **times,
            "peak_memory_mb": mb,
            "size_mb": 24.4,
            "tasks": tasks,
            "speedup": 2.0,
            "speedup_end_to_end": 1.9,
        }

    record = {"rows": [row(1000, 1800), row(500, 300)], "agreement": {"tasks": {"semseg": {"agreement": 99.9}}}}
    record |= {"machine": {"cpu": "SomeCPU", "architecture": "x86_64"}, "untrained": True, "model": "small"}
    lines = tables.demo({**record, "frames": 16, "data": "rooms:seed=2026 val"}).splitlines()
    assert lines[2] == "| network, median | 1000 ms | 500 ms | **2.0 x faster** |"
    assert lines[4] == "| peak memory of the process | 1800 MB | 300 MB | **6.0 x less** |"
    assert lines[6] == "| semantic labels, mIoU | 31.15 % | 31.15 % |  |"
    assert "Model `small`, **untrained**; metrics on 16 held-out made rooms" in lines[-1]


def test_a_record_turns_tables_stale_until_they_are_written(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    for document in tables.DOCUMENTS:
        (tmp_path / document).write_text((ROOT / document).read_text("utf-8"), "utf-8")
    for name, record in (("targets", TARGETS), ("bound", BOUND)):
        (tmp_path / "docs" / f"{name}.json").write_text(json.dumps(record))
    arguments = ["--root", str(tmp_path)]
    assert tables.main([*arguments, "--check"]) == 1
    assert "int8.md is stale: run python tools/readme_table.py" in capsys.readouterr().out
    assert tables.main(arguments) == 0
    assert tables.main([*arguments, "--check"]) == 0
    assert tables.targets(TARGETS) in (tmp_path / "README.md").read_text("utf-8")
    text = (tmp_path / "docs" / "int8.md").read_text("utf-8")
    assert all(table in text for table in (tables.targets(TARGETS), tables.accuracy(TARGETS), tables.bound(BOUND)))
    # What stands around the tables, and the other tables, stay.
    assert "## Frames" in text
    assert "<!-- table: demo -->" in (tmp_path / "README.md").read_text("utf-8")

    with pytest.raises(ValueError, match="the marks <!-- table: bound -->"):
        tables.replaced("no marks here", "bound", "")


def test_without_a_record_the_table_says_what_makes_it(tmp_path):
    text = tables.rendered("bound", tmp_path)
    assert "Not measured yet: `python tools/measure_bound.py` writes docs/bound.json" in text
