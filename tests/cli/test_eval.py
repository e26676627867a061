"""`emadeploy eval`: what it opens, prints, writes and refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from emadeploy import runtime
from emadeploy.cli import app
from emadeploy.cli import eval as eval_module
from emadeploy.cli import network as network_module
from emadeploy.cli.network import OpenNetwork, open_network
from emadeploy.contract.errors import ArtifactError, BackendMissing, DataError, SpecError
from emadeploy.contract.outputs import TaskOutputs, decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.data import source
from emadeploy.data.sample import Sample

SPEC = ModelSpec(
    "tiny", "hps", (TaskSpec("semseg", channels=13), TaskSpec("depth"), TaskSpec("edge")), InputSpec(32, 64)
)


@pytest.fixture(autouse=True)
def fake_network(monkeypatch) -> None:
    """Open, under the name 'fake', a network that sees a wall one metre away."""

    def predict(frame: np.ndarray) -> dict[str, np.ndarray]:
        size = frame.shape[:2]
        edge = np.zeros(size, np.float32)
        edge[100:101] = 0.9
        return {"semseg": np.full(size, 11, np.uint8), "depth": np.ones(size, np.float32), "edge": edge}

    def open_fake(path: Path) -> OpenNetwork:
        return OpenNetwork(SPEC, predict) if path.name == "fake" else open_network(path)

    monkeypatch.setattr(network_module, "open_network", open_fake)


def test_metrics_are_printed_and_written(data, tmp_path, capsys):
    eval_module.command(Path("fake"), data, json_file=tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["schema"], record["data"], record["frames"]) == (1, f"{data} val", 2)
    assert record["tasks"]["semseg"] == {"miou": 100.0, "pixel_accuracy": 100.0}
    assert record["tasks"]["depth"]["abs"] == 1
    assert "delta_m" not in record
    printed = capsys.readouterr().out
    assert "pixel_accuracy" in printed
    assert "metre" in printed
    assert "not judged, the data has no truth for them: edge" in printed


def test_a_baseline_adds_the_gain(data, tmp_path, capsys):
    base = {"semseg": {"miou": 80.0, "pixel_accuracy": 80.0}, "depth": {"abs": 1.25, "rel": 0.5, "rmse": 2.0}}
    (tmp_path / "base.json").write_text(
        json.dumps({"schema": 1, "data": "nyuv2:elsewhere val", "frames": 2, "tasks": base})
    )
    eval_module.command(Path("fake"), data, baseline=tmp_path / "base.json", json_file=tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["delta_m"] == pytest.approx((25 + 20) / 2)
    printed = capsys.readouterr().out
    assert "delta_m over the primary: +22.50 % (semseg +25.00 %, depth +20.00 %)" in printed
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    gains = {row[1]: row[-2] for row in rows if row[1]}
    assert gains == {"semseg": "+25.00", "depth": "+20.00", "all": "+22.50"}
    assert "" in {row[-3] for row in rows if row[2] == "log_rmse"}  # which the older baseline does not have


def test_a_baseline_of_other_data_or_tasks_is_refused(data, tmp_path, monkeypatch):
    base = {"schema": 1, "data": "cityscapes:elsewhere val", "frames": 500, "tasks": {"depth": {"abs": 1.0}}}
    (tmp_path / "base.json").write_text(json.dumps(base))
    with pytest.raises(DataError, match=r"500 frames of cityscapes:elsewhere val, this on 2 frames of nyuv2:"):
        eval_module.command(Path("fake"), data, baseline=tmp_path / "base.json")
    (tmp_path / "base.json").write_text(json.dumps({**base, "data": "nyuv2:elsewhere val", "frames": 2}))
    with pytest.raises(DataError, match=r"the evaluation has semseg, depth, the baseline depth;"):
        eval_module.command(Path("fake"), data, baseline=tmp_path / "base.json", json_file=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


class Lines:
    """Two frames, 'lines val'; only the first has edges, a line two pixels from where the fake network sees one."""

    description, tasks = "lines val", ("edge", "depth")
    specs = (TaskSpec("edge"), TaskSpec("depth"))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        image, depth = np.zeros((300, 400, 3), np.uint8), np.ones((300, 400), np.float32)
        edge = np.zeros((300, 400), np.uint8)
        edge[102] = 1
        return Sample(str(index), image, {"depth": depth} if index else {"depth": depth, "edge": edge})


@pytest.fixture
def lines(monkeypatch) -> str:
    """Make 'lines' a data set of edges, and return its name."""
    monkeypatch.setattr(source, "open_data", lambda *_, **__: Lines())
    return "lines"


def test_edges_are_matched_where_scipy_is_there(lines, tmp_path, capsys):
    eval_module.command(Path("fake"), lines, json_file=tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["task_frames"] == {"semseg": 0, "depth": 2, "edge": 1}
    assert record["tasks"]["edge"]["odsf"] == 100 > record["tasks"]["edge"]["f1"]
    printed = capsys.readouterr().out
    assert "frames with truth: edge 1" in printed
    assert "odsf" in printed
    assert "emadeploy[eval]" not in printed


@pytest.mark.parametrize("without_scipy", [False, True])
def test_f1_is_never_called_odsf(lines, tmp_path, capsys, monkeypatch, without_scipy):
    if without_scipy:
        monkeypatch.setitem(sys.modules, "scipy", None)
        with pytest.raises(BackendMissing, match=r"odsF of edges needs scipy.*emadeploy\[eval\]"):
            eval_module.command(Path("fake"), lines, edges="odsf")
    eval_module.command(Path("fake"), lines, edges=None if without_scipy else "f1", json_file=tmp_path / "out.json")
    assert list(json.loads((tmp_path / "out.json").read_text())["tasks"]["edge"]) == ["f1"]
    assert "--edges odsf matches them: pip install 'emadeploy[eval]'" in capsys.readouterr().out


def test_an_unknown_measure_of_edges_is_refused(lines):
    with pytest.raises(SpecError, match="edges 'best' is unknown; known: f1, odsf"):
        eval_module.command(Path("fake"), lines, edges="best")


def test_a_bad_baseline_is_refused_before_anything_is_opened(data, tmp_path):
    with pytest.raises(DataError, match=r"none.json cannot be read"):
        eval_module.command(Path("nowhere"), data, baseline=tmp_path / "none.json")


def test_what_is_neither_checkpoint_nor_artifact_is_refused(data, tmp_path):
    with pytest.raises(ArtifactError, match="nowhere is not a folder"):
        eval_module.command(tmp_path / "nowhere", data)
    with pytest.raises(ArtifactError, match=r"is neither .*expected a folder with checkpoint.json or manifest.json"):
        open_network(tmp_path)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "checkpoint.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"did you mean .*best"):
        open_network(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"manifest.json: not a manifest"):
        open_network(tmp_path)


def test_a_checkpoint_answers_as_its_model_does(tmp_path):
    torch = pytest.importorskip("torch")
    nets = pytest.importorskip("emadeploy.nets")
    torch.manual_seed(0)
    model = nets.build(SPEC).eval()
    nets.save_checkpoint(tmp_path / "best", model, SPEC)
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    opened = open_network(tmp_path / "best")
    with torch.no_grad():
        raw = model(torch.from_numpy(preprocess(frame, SPEC.input)))
    maps = opened.predict(frame)
    assert opened.spec == SPEC
    assert list(maps) == ["semseg", "depth", "edge"]
    for task in SPEC.tasks:
        np.testing.assert_allclose(maps[task.name], decode(raw[task.name].numpy(), task, (48, 80)), atol=1e-5)


def test_an_artifact_answers_as_its_runtime_does(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")
    seen = []

    class Perception:
        spec = SPEC

        def __call__(self, frame: np.ndarray) -> TaskOutputs:
            seen.append(frame)
            return TaskOutputs(0.0, depth=np.ones(frame.shape[:2], np.float32))

    monkeypatch.setattr(runtime, "load", lambda path: Perception() if path == tmp_path else None)
    opened = open_network(tmp_path)
    frame = np.zeros((4, 6, 3), np.uint8)
    assert list(opened.predict(frame)) == ["depth"]
    assert seen[0] is frame


def test_the_command_line_knows_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["emadeploy", "eval", str(tmp_path), "--data", data])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "emadeploy: ArtifactError: " in capsys.readouterr().err
