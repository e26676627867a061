"""`emadeploy compare`: what it prints, writes, draws and refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emadeploy.cli import app
from emadeploy.cli import compare as compare_module
from emadeploy.cli import network as network_module
from emadeploy.cli.network import OpenNetwork, open_network
from emadeploy.contract.errors import ArtifactError, BackendMissing, DataError, EmadeployError, SpecError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec

SEMSEG = TaskSpec("semseg", channels=13)
SPEC = ModelSpec("tiny", "hps", (SEMSEG, TaskSpec("depth"), TaskSpec("edge")), InputSpec(32, 64))
#: Name -> what the network of that name sees everywhere: its tasks, a distance in metres.
NETWORKS = {
    "near": (SPEC, 1.0),
    "far": (replace(SPEC, tasks=(SEMSEG, TaskSpec("depth"), TaskSpec("saliency"))), 2.0),
    "edges": (replace(SPEC, tasks=(TaskSpec("edge"),)), 1.0),
    "normals": (replace(SPEC, tasks=(TaskSpec("normals"),)), 1.0),
    "inverse": (
        replace(SPEC, tasks=(TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"),)),
        1.0,
    ),
    "few-classes": (replace(SPEC, tasks=(TaskSpec("semseg", channels=7),)), 1.0),
}


@pytest.fixture
def fake_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the networks of NETWORKS by their names."""

    def open_fake(path: Path) -> OpenNetwork:
        if path.name not in NETWORKS:
            return open_network(path)
        spec, metres = NETWORKS[path.name]

        def predict(frame: np.ndarray) -> dict[str, np.ndarray]:
            size = frame.shape[:2]
            maps = {"semseg": np.full(size, 11, np.uint8), "depth": np.full(size, metres, np.float32)}
            return {name: maps.get(name, np.zeros(size, np.float32)) for name in spec.task_names}

        return OpenNetwork(spec, predict)

    monkeypatch.setattr(network_module, "open_network", open_fake)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three pictures of different content."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a room.png", "9.png", "10.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (40, 60, 3), np.uint8))
    return folder


@pytest.mark.usefixtures("fake_networks")
def test_parity_and_both_metrics_are_printed_and_written(data, tmp_path, capsys):
    compare_module.command(Path("near"), Path("far"), data, json_file=tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert [record[key] for key in ("schema", "a", "b", "data", "frames")] == [1, "near", "far", f"{data} val", 2]
    assert record["parity"]["semseg"] == {"agreement": 100.0, "miou": 100.0}
    assert record["parity"]["depth"]["rel_mean"] == 0.5
    assert list(record["parity"]) == ["semseg", "depth"]
    assert [record["tasks"][which]["depth"]["abs"] for which in ("a", "b", "difference")] == [1, 0, 1]
    printed = capsys.readouterr().out
    for shown in (
        "B  far, taken as true",
        "relative difference, mean",
        "pixel_accuracy",
        "A - B",
        "not compared, A alone has them: edge",
        "not compared, B alone has them: saliency",
    ):
        assert shown in printed, shown
    assert "pictures:" not in printed


@pytest.mark.usefixtures("fake_networks")
def test_a_task_without_truth_is_compared_and_said_not_to_be_judged(data, capsys):
    compare_module.command(Path("near"), Path("edges"), data)
    printed = capsys.readouterr().out
    assert "difference of probabilities, largest" in printed
    assert "not judged, the data has no truth for them: edge" in printed
    assert "against the truth" not in printed


def test_two_artifacts_on_pictures_without_truth_through_the_installed_command(
    emadeploy_command: list[str], make_artifact: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    a, b = make_artifact("a"), make_artifact("b", frame_size=(40, 60))
    out = tmp_path / "new" / "out"
    argv = [*emadeploy_command, "compare", str(a), str(b), "--data", f"images:{photos}"]
    argv += ["--json", str(tmp_path / "out.json"), "--pictures", str(out), "--frames", "2"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not judged, the data has no truth for them: semseg, depth, normals" in done.stdout
    assert done.stdout.endswith(f"pictures: {out}\n")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["frames"] == 3
    assert record["tasks"] == {"a": {}, "b": {}, "difference": {}}
    assert set(record["parity"]["semseg"]) == {"agreement", "miou"}
    assert record["parity"]["semseg"]["agreement"] < 100
    assert record["parity"]["normals"]["mean"] > 0
    index = json.loads((out / "index.json").read_text())
    listed = [entry["file"] for entry in index["pictures"]]
    assert len(listed) == 2 * 3
    assert sorted(path.name for path in out.iterdir()) == sorted([*listed, "index.json"])
    for name in listed:
        assert cv2.imread(str(out / name)).shape[1] == 4 * 360


def test_the_same_artifact_twice_agrees_and_has_no_picture(
    make_artifact: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    artifact = make_artifact()
    out = tmp_path / "out"
    compare_module.command(artifact, artifact, f"images:{photos}", json_file=tmp_path / "out.json", pictures=out)
    parity = json.loads((tmp_path / "out.json").read_text())["parity"]
    assert parity["semseg"]["agreement"] == 100
    assert parity["depth"] == {"rel_mean": 0, "rel_p99": 0}
    assert parity["normals"] == {"mean": 0, "p95": 0}
    assert [path.name for path in out.iterdir()] == ["index.json"]
    assert json.loads((out / "index.json").read_text())["pictures"] == []


@pytest.mark.usefixtures("fake_networks")
@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ("near", "nowhere", ArtifactError, "nowhere is not a folder; expected a folder with checkpoint.json"),
        ("nowhere", "near", ArtifactError, "nowhere is not a folder"),
        ("near", "normals", SpecError, "A ('tiny') has semseg, depth, edge and B ('tiny') has normals: no task in"),
        ("near", "inverse", SpecError, "task 'depth': the unit is metre in A and inverse_depth in B"),
        ("few-classes", "far", SpecError, "task 'semseg': the number of classes is 7 in A and 13 in B"),
    ],
)
def test_networks_that_cannot_be_compared_are_refused(data, tmp_path, a, b, error, message):
    with pytest.raises(error) as refused:
        compare_module.command(Path(a), Path(b), data, pictures=tmp_path / "out")
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fake_networks")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frames": 3}, SpecError, "--frames 3 says how many pictures to write, but not where; add --pictures DIR"),
        ({"json_file": Path("no-such/out.json")}, DataError, "no-such is not a folder; --json needs one that exists"),
        ({"pictures": Path("val")}, DataError, "folder val holds 4 files already; name a new folder"),
        ({"split": "test"}, SpecError, "split 'test' is unknown"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    data, tmp_path, monkeypatch, options, error: type[EmadeployError], message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as refused:
        compare_module.command(Path("near"), Path("far"), data, **options)
    assert message in str(refused.value)


@pytest.mark.usefixtures("fake_networks")
def test_data_without_frames_is_refused(data, tmp_path):
    for path in (tmp_path / "val").glob("*/*.npy"):
        path.unlink()
    with pytest.raises(DataError, match=r"image holds no .npy file"):
        compare_module.command(Path("near"), Path("far"), data)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(DataError, match="holds no picture"):
        compare_module.command(Path("near"), Path("far"), f"images:{tmp_path}")


@pytest.mark.usefixtures("fake_networks")
def test_pictures_without_opencv_are_refused_before_any_frame(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendMissing, match=r"writing pictures needs opencv.*emadeploy\[robotics\]"):
        compare_module.command(Path("near"), Path("far"), data, pictures=tmp_path / "out")
    compare_module.command(Path("near"), Path("far"), data)


def test_a_frame_that_one_does_not_take_is_one_line_that_says_whose(
    make_artifact: Callable[..., Path],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [str(make_artifact("a")), str(make_artifact("b", frame_size=(48, 80)))]
    monkeypatch.setattr(sys, "argv", ["emadeploy", "compare", *paths, "--data", f"images:{photos}"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "frame 9.png: B: frame is 40 x 60" in err
