"""`emadeploy run`, through the installed command."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bags
import numpy as np
import pytest

from emadeploy.cli import app
from emadeploy.contract.health import Health, HealthRange

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(emadeploy_command: list[str]) -> Run:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [*emadeploy_command, "run", *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder of two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("9.png", "10.png"):
        cv2.imwrite(str(folder / name), np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    return folder


def test_a_folder_is_run_and_its_maps_are_saved(
    run: Run, make_artifact: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    done = run(make_artifact(), "--source", pictures, "--save", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 frames" in done.stdout
    for stage in ("preprocess", "inference", "decode", "total"):
        assert stage in done.stdout
    with np.load(tmp_path / "maps" / "10.npz") as archive:
        assert archive["depth"].shape == (40, 60)
    assert (tmp_path / "maps" / "9.semseg.png").is_file()


def test_a_bad_picture_is_named_the_rest_done_and_the_status_1(
    run: Run, make_artifact: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    (pictures / "5.jpg").write_bytes(b"\xff\xd8 not quite a picture")
    artifact = make_artifact(source={"untrained": True})
    done = run(artifact, "--source", pictures, "--save", tmp_path / "maps", "--json")
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert (record["frames"], record["untrained"], record["target"]) == (2, True, "onnxruntime-fp32")
    assert list(record["stages_ms"]) == ["preprocess", "inference", "decode", "total"]
    assert len(record["bad"]) == 1
    untrained, bad, last = done.stderr.splitlines()
    assert "is untrained" in untrained
    assert "5.jpg is damaged" in bad
    assert last == f"emadeploy: DataError: 1 of 3 frames of {pictures} could not be used; they are named above"
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.npz")) == ["10.npz", "9.npz"]


def test_maps_that_do_not_fit_together_are_a_warning_at_their_frame(
    run: Run, make_artifact: Callable[..., Path], pictures: Path
) -> None:
    for index in range(8):
        shutil.copy(pictures / "9.png", pictures / f"11{index}.png")
    # No network's maps fit together that well.
    known = HealthRange.of([Health(2.0, 20.0, 0.4, 1.0)])
    artifact = make_artifact(health=known.to_dict())
    done = run(artifact, "--source", pictures, "--json")
    assert done.returncode == 0, done.stderr
    health = json.loads(done.stdout)["health"]
    assert 0 <= health["median"] <= 1
    assert (health["low"], len(health["warnings"])) == (2.0, 1)
    assert done.stderr == f"emadeploy: {health['warnings'][0]}\n"
    assert "frame 114: health: depth, normals and labels fit together by" in done.stderr
    assert "health: 0." in run(artifact, "--source", pictures).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--source", "PICTURES"], "ArtifactError: nowhere does not exist"),
        (["ARTIFACT", "--source", "nowhere.png"], "DataError: source nowhere.png does not exist"),
        (["ARTIFACT", "--source", "a.mcap:/x"], "DataError: source a.mcap does not exist"),
        (
            ["ARTIFACT", "--source", "PICTURES", "--view", "a.gif"],
            "SpecError: --view 'a.gif' is unknown; known: screen",
        ),
        (
            ["ARTIFACT", "--source", "PICTURES", "--save", "a.mcap", "--intrinsics", "9"],
            "SpecError: --intrinsics '9': ",
        ),
        (["ARTIFACT", "--source", "camera:/x"], "DataError: camera:/x cannot be opened: there"),
        (["ARTIFACT", "--source", "PICTURES", "--threads", "0"], "SpecError: threads 0 is not positive"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_1(
    make_artifact: Callable[..., Path],
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    places = {"ARTIFACT": str(make_artifact()), "PICTURES": str(pictures)}
    argv = ["emadeploy", "run", *(places.get(argument, argument) for argument in arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says in err


def test_no_source_is_a_usage_error(run: Run, make_artifact: Callable[..., Path]) -> None:
    assert run(make_artifact()).returncode == 2


def test_a_bag_becomes_a_recording_and_its_damage_status_1(
    run: Run, make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("rosbags")
    mcap = pytest.importorskip("mcap.reader")
    path = bags.write_mcap(tmp_path / "drive.mcap", bags.Drive(count=12), chunk=20_000)
    artifact, out, film = make_artifact(), tmp_path / "out.mcap", tmp_path / "film.mjpeg"
    done = run(artifact, "--source", f"{path}:{bags.TOPIC}", "--save", out, "--view", film)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"12 frames of {path}:{bags.TOPIC}" in done.stdout
    with out.open("rb") as file:
        assert mcap.make_reader(file).get_summary().statistics.message_count == 12 * 6
    assert film.stat().st_size > 1000

    refused = run(artifact, "--source", path, "--save", out)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"{out} exists already: remove it, or name another file\n")

    bags.spoil_chunks(path, 1)
    done = run(artifact, "--source", path, "--save", tmp_path / "rest.mcap", "--json")
    record = json.loads(done.stdout)
    lost = 12 - record["frames"]
    assert lost > 0
    assert done.returncode == 1
    said, last = done.stderr.splitlines()
    assert f"{lost} of its 12 images cannot be read" in said
    assert last.endswith(f"{lost} of 12 frames of {path} could not be used; they are named above")
    assert (tmp_path / "rest.mcap").exists()
