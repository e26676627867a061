"""Sample predictions as pictures, and the logs beside them."""

import csv
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.colour import colourise
from emadeploy.pictures import read_picture
from emadeploy.train import fit as fit_module
from emadeploy.train.fit import fit
from emadeploy.train.pictures import Shown, contact_sheet
from emadeploy.train.schedule import rate_factor

GAP = 4


def test_a_row_per_frame_with_truth_and_prediction_side_by_side(make_spec, frames):
    spec = make_spec()
    height, width = spec.input.size
    sample = frames(1)[0]
    image = sample.image.transpose(2, 0, 1).astype(np.float32) / 255
    wrong = {name: np.roll(target, 8, axis=1) for name, target in sample.truth.items()}
    partial = {name: sample.truth[name] for name in ("semseg", "normals")}
    sheet = contact_sheet([Shown("a", image, sample.truth, wrong), Shown("b", image, partial, wrong)], spec)
    assert sheet.shape == (2 * (height + GAP), 7 * (width + GAP), 3)

    def cell(row, column):
        top, left = row * (height + GAP), column * (width + GAP)
        return sheet[top : top + height, left : left + width]

    assert np.array_equal(cell(0, 0), sample.image)
    assert np.array_equal(cell(0, 1), colourise(sample.truth["semseg"], spec.task("semseg")))
    assert np.array_equal(cell(0, 2), np.roll(cell(0, 1), 8, axis=1))
    assert np.array_equal(cell(0, 4), np.roll(cell(0, 3), 8, axis=1)), "depth has one scale in both"
    assert not cell(1, 3).any(), "no truth is black"
    assert cell(1, 4).any()


def test_a_run_leaves_pictures_and_logs(make_run, frames, monkeypatch):
    monkeypatch.setattr(fit_module, "LOG_EVERY", 1)
    run = make_run(epochs=2)
    fit(run, frames(4), frames(3), progress=False)
    found = sorted(path.name for path in (run.output / "pictures").iterdir())
    assert found == ["step-00000002.png", "step-00000004.png"]
    picture = read_picture(run.output / "pictures" / found[0])
    assert picture.shape == (3 * (32 + GAP), 7 * (64 + GAP), 3)

    with (run.output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["loss"]] == ["0", "1", "2", "3"]
    assert all(row["loss/depth"] for row in rows if row["loss"])
    rates = [float(row["learning_rate"]) for row in rows if row["loss"]]
    assert rates == pytest.approx([1e-3 * rate_factor(step, run.spec.train, 4) for step in range(4)])
    assert len([row for row in rows if row["semseg/miou"]]) == 2
    board = read_board(run.output / "tensorboard")
    assert {"loss", "loss/normals", "semseg/miou", "depth/abs"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["predictions"]
    assert [float(event.value) for event in board.Scalars("loss")] == pytest.approx(
        [float(row["loss"]) for row in rows if row["loss"]], rel=1e-5
    )


def read_board(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own, of what it imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(folder))
        board.Reload()
    return board
