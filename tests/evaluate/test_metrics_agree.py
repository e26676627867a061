"""The metrics against those of torchmetrics and scikit-learn, on random maps: both are in the dev extra."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torchmetrics import classification, regression

from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.metrics import Metrics
from emadeploy.evaluate.tallies import ANGLE_BIN


def measure(task: TaskSpec, predicted: np.ndarray, truth: np.ndarray) -> Metrics:
    """Return the metrics of frames (B, H, W, ...), added one by one."""
    metrics = Metrics([task])
    for guess, true in zip(predicted, truth, strict=True):
        metrics.update({task.name: guess}, {task.name: true})
    return metrics


@pytest.fixture(params=["semseg", "human_parts"])
def labels(request) -> tuple[TaskSpec, np.ndarray, np.ndarray]:
    """Return a task of seven classes, a prediction and a truth: class 5 is never true, class 6 occurs nowhere."""
    rng = np.random.default_rng(3)
    predicted, truth = (rng.integers(0, classes, (4, 20, 20), np.uint8) for classes in (6, 5))
    truth[rng.random(truth.shape) < 0.1] = 255
    return TaskSpec(request.param, channels=7), predicted, truth


def test_labels_agree_with_torchmetrics(labels):
    task, predicted, truth = labels
    arguments = torch.from_numpy(predicted.astype(int)), torch.from_numpy(truth.astype(int))
    jaccard = classification.MulticlassJaccardIndex(7, average="macro", ignore_index=255)(*arguments)
    accuracy = classification.MulticlassAccuracy(7, average="micro", ignore_index=255)(*arguments)
    assert measure(*labels).compute()[task.name] == pytest.approx(
        {"miou": 100 * float(jaccard), "pixel_accuracy": 100 * float(accuracy)}, rel=1e-5
    )


def test_labels_agree_with_scikit_learn(labels):
    task, predicted, truth = labels
    metrics = measure(*labels)
    valid = truth != 255
    per_class = sklearn.jaccard_score(truth[valid], predicted[valid], labels=range(6), average=None)
    assert metrics.per_class()[task.name] == pytest.approx({str(k): 100 * iou for k, iou in enumerate(per_class)})
    assert metrics.compute()[task.name]["miou"] == pytest.approx(100 * per_class.mean())
    accuracy = sklearn.accuracy_score(truth[valid], predicted[valid])
    assert metrics.compute()[task.name]["pixel_accuracy"] == pytest.approx(100 * accuracy)


def test_depth_agrees_with_both():
    rng = np.random.default_rng(4)
    truth = rng.uniform(0.5, 8, (3, 20, 30)).astype(np.float32)
    predicted = (truth * np.exp(0.4 * rng.normal(size=truth.shape))).astype(np.float32)
    truth[rng.random(truth.shape) < 0.3] = 0
    values = measure(TaskSpec("depth"), predicted, truth).compute()["depth"]
    valid = truth > 0
    true, guess = truth[valid].astype(float), predicted[valid].astype(float)
    assert values["abs"] == pytest.approx(sklearn.mean_absolute_error(true, guess))
    assert values["rel"] == pytest.approx(sklearn.mean_absolute_percentage_error(true, guess))
    assert values["rmse"] == pytest.approx(sklearn.root_mean_squared_error(true, guess))
    assert values["log_rmse"] == pytest.approx(sklearn.root_mean_squared_error(np.log(true), np.log(guess)))
    tensors = torch.from_numpy(guess), torch.from_numpy(true)
    assert values["abs"] == pytest.approx(float(regression.MeanAbsoluteError()(*tensors)))
    assert values["rel"] == pytest.approx(float(regression.MeanAbsolutePercentageError()(*tensors)))
    assert values["rmse"] == pytest.approx(float(regression.MeanSquaredError(squared=False)(*tensors)))
    # torchmetrics has log(1 + x).
    shifted = regression.MeanSquaredLogError()(tensors[0] - 1, tensors[1] - 1)
    assert values["log_rmse"] == pytest.approx(float(shifted) ** 0.5)


def test_angles_agree_with_torchmetrics():
    rng = np.random.default_rng(5)
    predicted, truth = rng.normal(size=(2, 3, 15, 21, 3)).astype(np.float32)
    values = measure(TaskSpec("normals"), predicted, truth).compute()["normals"]
    rows = (torch.from_numpy(a.reshape(-1, 3).astype(float)) for a in (predicted, truth))
    angles = torch.rad2deg(torch.arccos(regression.CosineSimilarity(reduction="none")(*rows)))
    assert values["mean"] == pytest.approx(float(angles.mean()))
    assert values["rmse"] == pytest.approx(float(angles.square().mean().sqrt()))
    assert values["median"] == pytest.approx(float(angles.median()), abs=ANGLE_BIN)
    for name, limit in (("within_11_25", 11.25), ("within_22_5", 22.5), ("within_30", 30)):
        assert values[name] == pytest.approx(100 * float((angles < limit).double().mean()))


@pytest.mark.parametrize(
    ("kind", "name", "beta2", "steps"), [("edge", "f1", 1.0, 1000), ("saliency", "maxf", 0.3, 255)]
)
def test_the_best_f_agrees_with_both(kind, name, beta2, steps):
    rng = np.random.default_rng(6)
    truth = (rng.random((3, 20, 20)) < 0.3).astype(np.uint8)
    # On the thresholds themselves, so that those of the others are the same.
    predicted = np.round(np.clip(0.3 * truth + rng.uniform(0.01, 0.7, truth.shape), 0, 1) * steps) / steps
    truth[rng.random(truth.shape) < 0.1] = 255
    value = measure(TaskSpec(kind), predicted, truth).compute()[kind][name]
    valid = truth != 255
    true, guess = truth[valid], predicted[valid]
    precision, recall, thresholds = sklearn.precision_recall_curve(true, guess)
    f = (1 + beta2) * precision * recall / np.maximum(beta2 * precision + recall, 1e-12)
    assert value == pytest.approx(100 * f.max())
    best = float(thresholds[f[:-1].argmax()])
    assert value == pytest.approx(100 * sklearn.fbeta_score(true, guess >= best, beta=beta2**0.5))
    scores = classification.BinaryFBetaScore(beta=beta2**0.5, threshold=best - 1e-9)
    assert value == pytest.approx(100 * float(scores(torch.from_numpy(guess), torch.from_numpy(true))), rel=1e-6)


def test_the_error_and_the_iou_of_saliency_agree_with_both():
    rng = np.random.default_rng(7)
    truth = (rng.random((3, 20, 20)) < 0.4).astype(np.uint8)
    predicted = np.clip(0.3 * truth + rng.uniform(0, 0.7, truth.shape), 0, 1)
    values = measure(TaskSpec("saliency"), predicted, truth).compute()["saliency"]
    assert values["mae"] == pytest.approx(sklearn.mean_absolute_error(truth.ravel(), predicted.ravel()))
    by_threshold = [
        np.mean([sklearn.jaccard_score(t.ravel(), p.ravel() > k / 20) for t, p in zip(truth, predicted, strict=True)])
        for k in range(4, 19)
    ]
    assert values["miou"] == pytest.approx(100 * max(by_threshold))
    jaccard = classification.BinaryJaccardIndex(threshold=(4 + int(np.argmax(by_threshold))) / 20)
    pictures = [float(jaccard(torch.from_numpy(p), torch.from_numpy(t))) for t, p in zip(truth, predicted, strict=True)]
    assert values["miou"] == pytest.approx(100 * np.mean(pictures), rel=1e-6)
