"""`emadeploy train --from CHECKPOINT --qat TARGET`, and the export of what it leaves; all that is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")
from onnx import numpy_helper
from shortened import SIZE, TASKS, shorten, shortened, structured

from emadeploy import nets
from emadeploy.cli import app
from emadeploy.cli.exporting.make import make_artifact
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.data.nyuv2 import LAYOUT
from emadeploy.data.record import DatasetRecord
from emadeploy.export import source
from emadeploy.export.stage import Wanted
from emadeploy.nets import checkpoint as checkpoint_module
from emadeploy.nets.hrnet import HRNet
from emadeploy.nets.quantised import QUANTISATION
from emadeploy.train import fit as fit_module

TARGET = "onnxruntime-int8"
Train = Callable[..., Any]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder in which all commands run, with a checkpoint and frames; networks are short there."""
    folder: Path = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EMADEPLOY_CACHE", str(folder / "cache"))
        patch.setattr(checkpoint_module, "build", short)
        patch.setattr(fit_module.nets, "build", short)
        patch.setattr(fit_module, "LOG_EVERY", 1)
        network = shortened(classes=13)
        nets.save_checkpoint("mine", network, network.spec, step=5)
        told(folder / "told")
        yield folder


def short(spec: Any, build: Any = nets.build) -> Any:
    network = build(spec)
    for module in network.modules():
        if isinstance(module, HRNet):
            shorten(module)
    return network


def told(folder: Path) -> None:
    """Write frames with truth, as the preprocessed release of NYUv2 has them."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    (folder / "dataset.json").write_text(DatasetRecord("nyuv2", "nyuv2-13", SIZE, "camera_optical").to_json())
    for split, count in (("train", 16), ("val", 2)):
        for name in ("image", *(LAYOUT.folders[task] for task in TASKS)):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(structured(count, SIZE, seed=8)):
            normal = rng.normal(size=(*SIZE, 3)).astype(np.float32)
            maps = {
                "image": frame,
                LAYOUT.folders["semseg"]: rng.integers(0, 13, SIZE),
                LAYOUT.folders["depth"]: rng.uniform(1, 3, SIZE).astype(np.float32),
                LAYOUT.folders["normals"]: normal / np.linalg.norm(normal, axis=2, keepdims=True),
            }
            for name, values in maps.items():
                np.save(folder / split / name / f"{index}.npy", values)


@pytest.fixture
def train(here: Path) -> Train:
    """Return a function that runs `emadeploy train` on the frames, and returns its exit status."""

    def run(*arguments: str) -> Any:
        return app.app(["train", "--data", "nyuv2:told", *arguments], standalone_mode=False)

    return run


@pytest.fixture(scope="module")
def tuned(here: Path) -> Path:
    """Return a run of three steps."""
    app.app(["train", "--data", "nyuv2:told", *SHORT, "-o", "tuned"], standalone_mode=False)
    return here / "tuned"


SHORT = ("--from", "mine", "--qat", TARGET, "--steps", "3", "--batch", "2", "--learning-rate", "0.01")


def scales(path: Path) -> dict[str, float]:
    """Return the scale of each QuantizeLinear of a graph."""
    model = onnx.load(path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {n.name: float(arrays[n.input[1]]) for n in model.graph.node if n.op_type == "QuantizeLinear"}


def test_a_run_leaves_weights_and_scales(tuned: Path) -> None:
    before, after = nets.read_checkpoint("mine"), nets.read_checkpoint(tuned / "last")
    assert (after.step, after.spec.train.batch_norm, after.spec.train.precision) == (3, "frozen", "fp32")
    listed = json.loads((tuned / "last" / "checkpoint.json").read_text())["files"]
    assert set(listed) == {"model.safetensors", QUANTISATION}
    learned = after.quantisation()
    assert learned is not None
    assert before.quantisation() is None
    assert learned["target"] == TARGET
    assert learned["facts"]["data"] == "nyuv2:told"
    assert learned["facts"]["distil"] == 1.0
    assert len(learned["ranges"]) > 60
    old, new = before.state_dict(), after.state_dict()
    moved = [name for name in old if not (old[name] == new[name]).all()]
    assert "heads.depth.0.conv1.weight" in moved
    assert not any("running" in name or "fusion" in name for name in moved)
    rows = (tuned / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"loss/distilled", "loss/depth", "depth/abs"} <= set(rows)


def test_an_export_has_the_learned_scales(tuned: Path, here: Path) -> None:
    said: list[str] = []
    artifact = make_artifact(str(tuned / "last"), order("learned"), report=said.append)
    assert [
        line for line in said if line.startswith(f"taking the learned ranges, trying out {TARGET} on 16 frames of ")
    ]
    assert not [line for line in said if "calibrating" in line]
    found, calibrated = scales(artifact / "model.onnx"), scales(tuned / "int8" / "model.onnx")
    assert list(found) == list(calibrated)
    differ = [name for name in found if found[name] != pytest.approx(calibrated[name], rel=1e-3)]
    assert len(differ) > len(found) / 2
    learned = nets.read_checkpoint(tuned / "last").quantisation()
    assert learned is not None
    low, high = learned["ranges"]["image"]
    assert next(scale for name, scale in found.items() if "image" in name) == pytest.approx((high - low) / 255)
    calibration = Manifest.read(artifact).calibration
    assert calibration is not None
    assert calibration["learned"]["by"] == f"emadeploy train --qat {TARGET}"
    assert calibration["learned"]["steps"] == 3


def order(output: str, target: str = TARGET, **fields: Any) -> Order:
    return Order(target=target, output=Path(output), calib_data="nyuv2:told", max_drop="none", **fields)


def test_frames_may_be_taken_in_the_graph(tuned: Path) -> None:
    wanted = Wanted(frame_size=(80, 120))
    artifact = make_artifact(str(tuned / "last"), order("framed", wanted=wanted), report=lambda _: None)
    assert (Manifest.read(artifact).calibration or {})["learned"]["steps"] == 3


def test_other_targets_are_told_that_they_calibrate(tuned: Path) -> None:
    opened = source.open_source(str(tuned / "last"))
    note = f"fine-tuned for {TARGET}: other targets take its weights, and calibrate their own ranges"
    assert opened.notes == (note,)
    assert opened.learned is not None
    assert opened.learned["step"] == 3
    assert source.open_source("mine").learned is None


def test_eval_says_that_it_answers_in_float(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app.app(["eval", str(tuned / "last"), "--data", "nyuv2:told"], standalone_mode=False)
    assert f"note: fine-tuned for {TARGET}: evaluated in float, without its rounding" in capsys.readouterr().out
    app.app(["eval", "mine", "--data", "nyuv2:told"], standalone_mode=False)
    assert "note:" not in capsys.readouterr().out


@pytest.mark.slow
def test_stopped_and_resumed_is_as_uninterrupted(train: Train, tuned: Path, here: Path, monkeypatch: Any) -> None:
    def stop(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        if module.global_step == 2:
            self.interrupted = True
        step_end(self, trainer, module, *rest)

    step_end = fit_module.Keeper.on_train_batch_end
    with monkeypatch.context() as patch:
        patch.setattr(fit_module.Keeper, "on_train_batch_end", stop)
        assert train(*SHORT, "-o", "stopped") == 130
    assert nets.read_checkpoint(here / "stopped" / "last").step == 2
    train(*SHORT, "-o", "stopped", "--resume")
    found, wanted = nets.read_checkpoint(here / "stopped" / "last"), nets.read_checkpoint(tuned / "last")
    assert found.digest == wanted.digest
    assert found.quantisation() == wanted.quantisation()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "emanet-nyuv2", "--qat", TARGET), "name its checkpoint with --from"),
        (("--from", "mine", "--qat", "openvino-int8"), "NNCF places OpenVINO's fake quantisation"),
        (("--from", "mine", "--qat", "onnxruntime-fp32"), "it has no integers; targets that can be fine-tuned for"),
        (("--from", "mine", "--qat", "abacus-int8"), "abacus-int8"),
        (("--from", "mine", "--qat", TARGET, "--precision", "bf16"), "precision is bf16"),
        (("--from", "mine", "--qat", TARGET, "--devices", "2"), "runs on one device"),
        (("--from", "mine", "--qat", TARGET, "--distil", "-1"), "distil -1.0 is not a number from 0 up"),
        (("--from", "mine", "--qat", TARGET, "--find-lr"), "--find-lr looks at a network in float"),
        (("--from", "mine", "--distil", "1"), "a weight beside --qat alone"),
        (("--from", "mine", "--qat", TARGET, "--steps", "0"), "steps 0 is not positive"),
        (("--from", "mine", "--qat", TARGET, "--resume"), "holds no run to resume"),
        ((), "name a model with --model, or a checkpoint to go on from with --from"),
    ],
)
def test_what_cannot_be_is_refused(train: Train, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        train(*arguments, "-o", "refused")
    assert not Path("refused").exists()


def test_an_output_in_use_is_refused_before_anything_is_traced(
    train: Train, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emadeploy.cli import fine_tuning

    monkeypatch.setattr(fine_tuning, "export_graph", lambda *_, **__: pytest.fail("traced"))
    with pytest.raises(SpecError, match="already holds a run"):
        train(*SHORT, "-o", "tuned")


def test_data_of_another_kind_is_refused_before_anything_is_traced(
    train: Train, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emadeploy.cli import fine_tuning

    monkeypatch.setattr(fine_tuning, "export_graph", lambda *_, **__: pytest.fail("traced"))
    shutil.copytree(here / "told", here / "release")
    (here / "release" / "dataset.json").unlink()
    with pytest.raises(
        DataError, match="differ in normals: the frame is dataset in the data and camera_optical in the"
    ):
        train(*SHORT, "--data", "nyuv2:release", "-o", "refused")
    assert not Path("refused").exists()
