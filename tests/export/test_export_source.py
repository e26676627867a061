"""What is exported where a checkpoint, a zoo model or nothing is named, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emadeploy import nets, zoo
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.export import deploy
from emadeploy.export.source import newest_checkpoint, open_source
from emadeploy.export.stage import Wanted, check_form, export_graph
from emadeploy.nets.network import Network


@pytest.fixture
def checkpoint(tmp_path: Path, make_full: Callable[[], Network]) -> Path:
    network = make_full()
    nets.save_checkpoint(tmp_path / "kept", network, network.spec, step=12)
    return tmp_path / "kept"


@pytest.fixture
def make_full() -> Callable[[], Network]:
    def make() -> Network:
        torch.manual_seed(3)
        return nets.build(zoo.load_spec("hps-cityscapes"))

    return make


def test_a_checkpoint(checkpoint: Path, make_full: Callable[[], Network]) -> None:
    source = open_source(str(checkpoint))
    wanted = make_full().state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in source.network.state_dict().items())
    assert source.record["sha256"] == nets.read_checkpoint(checkpoint).digest
    assert (source.record["step"], source.record["untrained"], source.notes) == (12, False, ())
    assert "step 12" in source.described


def test_a_checkpoint_at_another_size_says_so(checkpoint: Path) -> None:
    source = open_source(str(checkpoint), size=(64, 96))
    assert source.spec.input.size == (64, 96)
    assert source.notes == ("trained at 128x256, exported at 64x96: accuracy to be measured",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "checkpoint.json").write_text("{}"), "schema"),
        (lambda folder: (folder / "checkpoint.json").write_text("not json"), "not the record of a checkpoint"),
        (lambda folder: os.truncate(next(folder.glob("*.safetensors")), 1000), "truncated or altered"),
        (lambda folder: (folder / "checkpoint.json").unlink(), "has no checkpoint.json"),
    ],
    ids=["foreign", "not json", "truncated", "no record"],
)
def test_a_damaged_checkpoint_is_refused(checkpoint: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(checkpoint)
    with pytest.raises(ArtifactError, match=message):
        open_source(str(checkpoint))


def test_a_run_is_not_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    checkpoint.rename(tmp_path / "best")
    with pytest.raises(ArtifactError, match=r"is a run, not a checkpoint; it holds .*best"):
        open_source(str(tmp_path))


def test_a_folder_named_like_a_model_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hps-cityscapes").mkdir()
    with pytest.raises(SpecError, match="comes without weights"):
        open_source("hps-cityscapes")


def test_untrained_weights_are_the_same_every_time() -> None:
    state = torch.random.get_rng_state()
    one, two = (open_source("hps-cityscapes", untrained=True, size=(64, 64)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    others = two.network.state_dict()
    assert all(torch.equal(tensor, others[name]) for name, tensor in one.network.state_dict().items())
    assert one.record == {"model": "hps-cityscapes", "untrained": True, "seed": 0}
    assert one.spec.input.size == (64, 64)
    assert one.notes


def test_names_that_have_nothing_to_export(checkpoint: Path) -> None:
    with pytest.raises(SpecError, match=r"comes without weights: train it .* import the authors' .* --untrained"):
        open_source("hps-cityscapes")
    with pytest.raises(SpecError, match=r"'emanet-nyu' is neither a folder nor a model.*emanet-nyuv2"):
        open_source("emanet-nyu")
    with pytest.raises(SpecError, match="is a checkpoint, which has weights"):
        open_source(str(checkpoint), untrained=True)


@pytest.mark.parametrize("size", [(100, 128), (0, 32)])
def test_sizes_that_no_network_takes(checkpoint: Path, size: tuple[int, int]) -> None:
    for name, untrained in ((str(checkpoint), False), ("emanet-nyuv2", True)):
        with pytest.raises(SpecError, match=r"not divisible by 32|not a positive"):
            open_source(name, size=size, untrained=untrained)


def test_newest_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for age, folder in enumerate(("b/last", "b/best", "a/last", "a/best")):
        (tmp_path / folder).mkdir(parents=True)
        record = tmp_path / folder / "checkpoint.json"
        record.touch()
        os.utime(record, (1000 - age, 1000 - age))
    # The last one saved is b's, but what a run is judged by is its best.
    assert newest_checkpoint(tmp_path) == tmp_path / "b" / "best"
    os.utime(tmp_path / "a" / "last" / "checkpoint.json", (2000, 2000))
    assert newest_checkpoint(tmp_path) == tmp_path / "a" / "best"


def test_no_name_takes_the_newest_run_and_else_the_demo(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "weights", lambda name: checkpoint if name == zoo.DEMO_MODEL else None)
    assert open_source(None).described.startswith("zoo model emanet-rooms")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    checkpoint.rename(tmp_path / "runs" / "mine" / "best")
    assert open_source(None).record["checkpoint"] == str(Path("runs/mine/best"))


def test_forms_of_ctal() -> None:
    for form in (None, "exact", "affinity", "basis", "basis:1", "basis:9"):
        check_form(form)
    for form in ("linear", "basis:", "basis:0", "basis:12", "basis:2.5"):
        with pytest.raises(SpecError, match=rf"'{form}' is unknown; known: exact, affinity, basis, and basis:R with R"):
            Wanted(ctal=form)


def test_tasks() -> None:
    assert deploy.choose_tasks(("semseg", "depth"), None) == ("semseg", "depth")
    assert deploy.choose_tasks(("semseg", "depth"), ("depth", "semseg")) == ("semseg", "depth")
    with pytest.raises(SpecError, match="task 'edge' is unknown; the model has semseg, depth"):
        deploy.choose_tasks(("semseg", "depth"), ("edge",))
    with pytest.raises(SpecError, match="no task asked for"):
        deploy.choose_tasks(("semseg", "depth"), ())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(ctal="exact"), "hps network, without CTAL: leave --ctal out"),
        (Wanted(tasks=("normals",)), "task 'normals' is unknown"),
        (Wanted(frame_size=(0, 20)), "not positive"),
    ],
)
def test_what_a_network_does_not_have(tmp_path: Path, wanted: Wanted, message: str) -> None:
    source = open_source("hps-cityscapes", untrained=True)
    with pytest.raises(SpecError, match=message):
        export_graph(source, wanted, tmp_path / "graph", report=lambda line: None)
    assert list(tmp_path.iterdir()) == []
