"""`emadeploy export --target *-int8`, from a checkpoint to an artifact that is judged, and all that is refused.

The checkpoint is of a shortened network. Its own answers in float are the truth that judges it: what int8 loses is
all that can be lost.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("nncf")
from shortened import SIZE, TASKS, shorten, shortened, structured

from emadeploy import nets, runtime, zoo
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.calibrate.search import keep_within
from emadeploy.cli import app
from emadeploy.cli.exporting import judge, make
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.data.nyuv2 import LAYOUT
from emadeploy.data.record import DatasetRecord
from emadeploy.nets import checkpoint as checkpoint_module
from emadeploy.nets.hrnet import HRNet

FRAMES = 16
GENEROUS = "semseg=100,depth=1000%,normals=180deg"
FRAME = structured(1, SIZE, seed=5)[0]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder in which all commands run. Networks are as short as that of the checkpoint."""
    folder: Path = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EMADEPLOY_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "200")
        patch.setattr(checkpoint_module, "build", _short)
        # What fails, fails soon: 40 probes of a search would be 40 engines.
        patch.setattr(judge, "keep_within", partial(keep_within, probes=16))
        network = shortened(classes=13)
        nets.save_checkpoint("mine", network, network.spec)
        _pictures(folder / "pictures", structured(FRAMES, SIZE))
        yield folder


def _short(spec: Any) -> Any:
    network = nets.build(spec)
    for module in network.modules():
        if isinstance(module, HRNet):
            shorten(module)
    return network


def _pictures(folder: Path, frames: list[Any]) -> None:
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:02}.png")


@pytest.fixture
def command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the installed command's entry point in this process."""

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["emadeploy", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        return Ended(end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def told(here: Path) -> str:
    """Return DATA with truth for four frames: what the network in float answers; depth with noise, never perfect."""
    artifact = make.make_artifact("mine", Order(output=Path("float")), report=lambda _: None)
    rng = np.random.default_rng(4)
    (here / "told").mkdir()
    record = DatasetRecord("nyuv2", "nyuv2-13", SIZE, normals_frame="camera_optical")
    (here / "told" / "dataset.json").write_text(record.to_json())
    for folder in ("image", *(LAYOUT.folders[task] for task in TASKS)):
        (here / "told" / "val" / folder).mkdir(parents=True)
    with runtime.load(artifact) as perception:
        for index, frame in enumerate(structured(4, SIZE, seed=8)):
            maps: dict[str, Any] = dict(perception(frame).maps)
            maps["depth"] = np.abs(maps["depth"]) * rng.uniform(0.9, 1.1, SIZE).astype(np.float32) + 1e-3
            for folder, values in (("image", frame), *((LAYOUT.folders[task], maps[task]) for task in TASKS)):
                np.save(here / "told" / "val" / folder / f"{index}.npy", values)
    return "nyuv2:told"


def export(command: Command, *arguments: str, target: str = "openvino-int8") -> Ended:
    return command("export", "mine", "--target", target, "--calib-data", "images:pictures", *arguments)


def answers(artifact: Path, frame: Any = FRAME) -> TaskOutputs:
    with runtime.load(artifact, threads=1) as perception:
        return perception(frame)


def check_record(manifest: Manifest, target: str) -> dict[str, Any]:
    """Check what the manifest says of calibration and judgement; return its calibration."""
    calibration = manifest.calibration
    assert calibration is not None
    recipe = load_recipe(target).resolved()
    assert calibration["recipe_sha256"] == recipe.digest()
    assert calibration["recipe"]["method"] == recipe.method
    assert calibration["frames"]["count"] == FRAMES
    assert calibration["frames"]["data"] == "images:pictures"
    assert len(calibration["frames"]["sha256"]) == 64
    assert (calibration["types"], calibration["rest"]) == (recipe.types, "fp32")  # no layer kept
    assert calibration["budget"]["history"][0]["held"] is True
    assert (calibration["budget"]["kept"], calibration["budget"]["evaluations"]) == ([], 1)
    assert [row["task"] for row in calibration["budget"]["tasks"]] == list(TASKS)
    assert set(calibration["parity_with_float"]["tasks"]) == set(TASKS)
    assert manifest.accuracy is not None
    assert (manifest.accuracy["data"], manifest.accuracy["frames"]) == ("nyuv2:told val", 4)
    assert set(manifest.accuracy["tasks"]) == set(manifest.accuracy["float32"]) == set(TASKS)
    assert manifest.accuracy["float32"]["semseg"]["miou"] > 90
    assert manifest.accuracy["tasks"]["semseg"]["miou"] > 30
    return dict(calibration)


def test_an_engine_that_is_judged(command: Command, told: str, here: Path) -> None:
    done = export(command, "--data", told, "--max-drop", GENEROUS, "-o", "judged")
    assert done.status == 0, done.err
    assert "every budget holds in plain int8 (1 evaluation)" in done.out
    assert done.out.count(" held ") == len(TASKS)
    manifest = Manifest.read(here / "judged")
    manifest.verify_files(here / "judged")
    check_record(manifest, "openvino-int8")
    assert manifest.audit is not None
    assert set(manifest.audit["branches"]["ctal"]["compute"]) == {"int8"}
    assert manifest.precision["ctal"] == "int8"
    assert manifest.asked.get("ctal", "int8") == "int8"
    assert manifest.health is not None
    assert 0 < manifest.health["frames"] <= FRAMES
    found, wanted = answers(here / "judged"), answers(here / "float")
    assert found.semseg is not None
    assert wanted.semseg is not None
    assert 100 * float((found.semseg == wanted.semseg).mean()) > 50, "what int8 answers is no longer the network's"
    assert not np.array_equal(found.maps["depth"], wanted.maps["depth"]), "int8 must round"

    shown = command("inspect", "judged")
    assert (shown.status, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines()]
    assert any(line[:2] == ["semseg", "miou"] and line[-2:] == ["points", "held"] for line in lines)
    assert ["frames.count", str(FRAMES)] in [line[-2:] for line in lines]
    assert "nothing: all in int8" in shown.out
    assert "nyuv2:told val" in shown.out
    assert "float32.semseg.miou" in shown.out
    assert "{'" not in shown.out, "a record is shown as Python prints it"
    record = json.loads(command("inspect", "judged", "--json").out)
    assert record["manifest"]["calibration"]["budget"]["budgets"].startswith("semseg=100.0,")


def test_onnxruntime_is_judged_likewise(command: Command, told: str, here: Path) -> None:
    named = ("--data", told, "--max-drop", GENEROUS, "-o", "ort")
    done = export(command, *named, target="onnxruntime-int8")
    assert done.status == 0, done.err
    manifest = Manifest.read(here / "ort")
    check_record(manifest, "onnxruntime-int8")
    assert manifest.target == "onnxruntime-int8"
    assert answers(here / "ort").maps["depth"].shape == SIZE


def test_a_basis_at_another_size_that_takes_frames(command: Command, here: Path) -> None:
    named = ("--ctal", "basis:2", "--size", "96x64", "--frame-size", "64x96", "--max-drop", "none")
    done = export(command, *named, "-o", "basis")
    assert done.status == 0, done.err
    assert "note: trained at 64x96, exported at 96x64" in done.out
    manifest = Manifest.read(here / "basis")
    assert (manifest.frame_size, manifest.model.input.size) == (SIZE, (96, 64))
    assert manifest.graph["ctal"].startswith("basis")
    # The depthwise filters of a basis run in float, on purpose and listed.
    assert (manifest.accuracy, manifest.precision["ctal"]) == (None, "mixed")
    assert manifest.calibration is not None
    assert all(".keys.filter." in node for node in manifest.calibration["kept"])
    found = answers(here / "basis")
    assert found.maps["depth"].shape == SIZE
    assert np.isfinite(found.maps["depth"]).all()
    assert np.ptp(found.maps["depth"]) > 0


def test_budgets_that_cannot_hold_leave_nothing(command: Command, told: str, here: Path) -> None:
    before = sorted(path.name for path in here.iterdir() if path.name != "cache")
    (here / "once.yml").write_text(_recipe("evaluations: 24", "evaluations: 1"))
    named = ("--data", told, "--max-drop", "semseg=0,depth=0%,normals=0deg", "--recipe", "once.yml", "-o", "never")
    done = export(command, *named)
    (here / "once.yml").unlink()
    assert done.status == 1
    [line] = done.err.strip().splitlines()[-1:]
    assert line.startswith(
        "emadeploy: BudgetError: the budgets semseg=0.0,depth=0.0%,normals=0.0deg do not hold in int8"
    )
    assert "Allow more with --max-drop, calibrate on more frames, or export in float" in line
    assert "Traceback" not in done.err
    assert "nearest to the budgets" in done.out
    assert sorted(path.name for path in here.iterdir() if path.name != "cache") == before


def _recipe(old: str, new: str) -> str:
    text = (zoo.assets("calibration") / "recipes" / "openvino-int8.yml").read_text()
    assert old in text
    return text.replace(old, new)


@pytest.fixture
def unusable(here: Path) -> None:
    """Lay out what must be refused: grey frames, a file that is no picture, a recipe with a word too many."""
    if not (here / "grey").exists():
        _pictures(here / "grey", [np.full((*SIZE, 3), 90, np.uint8)] * FRAMES)
        _pictures(here / "broken", structured(FRAMES, SIZE))
        (here / "broken" / "07.png").write_text("no picture")
        (here / "odd.yml").write_text(_recipe("minimum: 16", "minimum: 16\nsharpness: 3"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calib-frames", "2"], "CalibrationError: --calib-frames 2: openvino-int8 needs at least 16"),
        (["--calib-frames", "17"], "CalibrationError: --calib-frames 17: images:pictures holds 16; ask for fewer"),
        (["--calib-data", "images:grey"], "CalibrationError: images:grey: frame 0 is of one colour"),
        (["--calib-data", "images:broken"], "DataError: broken/07.png"),
        (["--max-drop", "semseg"], "SpecError: budget 'semseg' is not TASK=NUMBER with its unit"),
        (["--max-drop", "depth=2"], "SpecError: budget 'depth=2' is without a unit; depth takes percent"),
        (["--max-drop", "edge=1"], "SpecError: budget 'edge=1': no task 'edge' is exported; accepted are"),
        (["--tasks", "depth", "--max-drop", "semseg=1"], "SpecError: budget 'semseg=1': no task 'semseg' is exported"),
        (
            ["--ctal", "basis:0"],
            "SpecError: CTAL form 'basis:0' is unknown; known: exact, affinity, basis, and basis:R",
        ),
        (["--ctal", "basis:10"], "SpecError: CTAL form 'basis:10' is unknown; known: exact, affinity, basis, and"),
        (["--ctal", "basis", "--basis-error", "0"], "SpecError: --basis-error 0 is not above 0 and below 100 percent"),
        (["--basis-error", "1"], "SpecError: --basis-error 1: the form of CTAL is exact; it goes with --ctal basis"),
        (["--data", "images:pictures"], "images:pictures has no truth for semseg, depth, normals: give labelled"),
        (["--max-drop", "none", "--data", "images:pictures"], "nothing is judged with --max-drop none; leave it out"),
        (["--recipe", "odd.yml"], "SpecError: odd.yml: unknown field 'sharpness'"),
        (["--target", "onnxruntime-fp32", "--max-drop", "depth=2%"], "--calib-data: for int8 targets alone;"),
    ],
)
def test_what_is_refused_before_anything_is_traced(
    command: Command, unusable: None, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    def traced(*_: object, **__: object) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(make, "export_graph", traced)
    before = sorted(here.iterdir())
    # The control: with what is asked for here replaced by what is right, tracing is reached.
    with pytest.raises(AssertionError, match="traced"):
        export(command, "--max-drop", "none")
    done = export(command, *arguments)
    assert (done.status, len(done.err.splitlines())) == (1, 1), done.err
    assert done.err.startswith("emadeploy: ")
    assert message in done.err
    assert sorted(here.iterdir()) == before


def run(installed: list[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*installed, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_installed_command_on_random_weights(emadeploy_command: list[str], here: Path, tmp_path: Path) -> None:
    light = (
        "export",
        "hps-cityscapes",
        "--untrained",
        "--size",
        "32x64",
        "--tasks",
        "depth",
        "--target",
        "openvino-int8",
    )
    refused = run(emadeploy_command, tmp_path, *light)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith("emadeploy: CalibrationError: no calibration frames are bundled for model 'hps-cityscapes'")
    assert list(tmp_path.iterdir()) == []

    done = run(emadeploy_command, tmp_path, *light, "--calib-data", f"images:{here / 'pictures'}", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("note: random weights")
    assert "evaluating" not in done.stdout
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.untrained, manifest.accuracy) == (True, None)
    assert manifest.calibration is not None
    assert "budget" not in manifest.calibration
    assert set(manifest.precision.values()) == {"int8"}
    assert answers(tmp_path / "out").maps["depth"].shape == SIZE
