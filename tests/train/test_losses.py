"""Losses: cases counted by hand, formulas in float64, pixels that do not count."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.spec import TaskSpec  # noqa: E402
from emadeploy.train.losses import MultiTaskLoss, initial_names, task_loss  # noqa: E402

CHANNELS = {"semseg": 5, "human_parts": 4, "depth": 1, "normals": 3, "edge": 1, "saliency": 2}
KINDS = tuple(CHANNELS)
B, H, W = 2, 3, 4


def example(kind: str, *, ignore: str = "some") -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return raw maps, truth and the valid pixels (B, H, W); ``ignore`` is 'some' or 'all' of them."""
    rng = np.random.default_rng(KINDS.index(kind))
    raw = torch.tensor(rng.normal(size=(B, CHANNELS[kind], H, W)), dtype=torch.float64, requires_grad=True)
    valid = rng.random((B, H, W)) < (0.7 if ignore == "some" else 0)
    if kind == "depth":
        truth = rng.uniform(0.5, 5, (B, 1, H, W)) * valid[:, None]
    elif kind == "normals":
        vector = rng.normal(size=(B, 3, H, W))
        truth = vector / np.linalg.norm(vector, axis=1, keepdims=True) * valid[:, None]
    else:
        classes = CHANNELS[kind] if kind in ("semseg", "human_parts") else 2
        truth = np.where(valid, rng.integers(0, classes, (B, H, W)), 255)
    return raw, torch.from_numpy(truth), valid


def by_the_book(kind: str, raw: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """The formula of the kind, pixel by pixel, with nothing but numpy."""
    terms = []
    share = (truth == 1).sum() / valid.sum() if kind == "saliency" else None
    for b, y, x in zip(*np.nonzero(valid), strict=True):
        pixel = raw[b, :, y, x]
        if kind == "depth":
            terms.append(abs(pixel[0] - truth[b, 0, y, x]))
        elif kind == "normals":
            terms.append(1 - pixel @ truth[b, :, y, x] / np.linalg.norm(pixel))
        elif kind == "edge":
            probability = 1 / (1 + math.exp(-pixel[0]))
            is_edge = truth[b, y, x] == 1
            terms.append(-0.95 * math.log(probability) if is_edge else -0.05 * math.log(1 - probability))
        else:
            label = truth[b, y, x]
            term = math.log(np.exp(pixel).sum()) - pixel[label]
            terms.append(term * ((1 - share) if label == 1 else share) if kind == "saliency" else term)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_its_formula(kind):
    raw, truth, valid = example(kind)
    expected = by_the_book(kind, raw.detach().numpy(), truth.numpy(), valid)
    assert task_loss(raw, truth, kind).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_pixels_have_no_gradient_and_the_others_have(kind):
    raw, truth, valid = example(kind)
    task_loss(raw, truth, kind).backward()
    gradient_BHW = raw.grad.abs().sum(dim=1).numpy()
    assert (gradient_BHW[~valid] == 0).all()
    assert (gradient_BHW[valid] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_valid_pixel_is_exactly_zero(kind):
    raw, truth, _ = example(kind, ignore="all")
    loss = task_loss(raw, truth, kind)
    loss.backward()
    assert loss.item() == 0
    assert (raw.grad == 0).all()


@pytest.mark.parametrize(
    ("kind", "raw", "truth", "expected"),
    [
        ("semseg", [[0.0, 0.0]], [0], math.log(2)),
        ("depth", [[3.0], [5.0]], [2.5, 0.0], 0.5),
        ("normals", [[0.0, 0.0, -7.0], [2.0, 0.0, 0.0]], [[0, 0, -1], [0, 1, 0]], 0.5),
        ("edge", [[0.0], [0.0]], [1, 0], math.log(2) / 2),
        # One salient of four: it weighs 3/4, the three others 1/4 each.
        ("saliency", [[0.0, 0.0]] * 4, [1, 0, 0, 0], math.log(2) * (3 / 4 + 3 / 4) / 4),
    ],
)
def test_counted_by_hand(kind, raw, truth, expected):
    raw_BCHW = torch.tensor(raw).T[None, :, None]  # pixels in a row
    target = torch.tensor(truth)
    target = target.T[None, :, None].float() if kind == "normals" else target[None, None]
    target = target[None].float() if kind == "depth" else target
    assert task_loss(raw_BCHW, target, kind).item() == pytest.approx(expected, rel=1e-6)


def test_balance_weighs_both_classes_alike():
    """However rare the salient pixels are, both classes pull equally on a network that knows nothing."""
    truth = torch.zeros(1, 10, 10, dtype=torch.int64)
    truth[0, 0, :3] = 1
    raw = torch.zeros(1, 2, 10, 10, requires_grad=True)
    task_loss(raw, truth, "saliency").backward()
    pull = raw.grad[0, 1]
    assert pull[truth[0] == 1].sum().item() == pytest.approx(-pull[truth[0] == 0].sum().item(), rel=1e-5)


# ---- several tasks

TASKS = (TaskSpec("depth", weight=2.0), TaskSpec("semseg", channels=5, weight=0.5))


def several(names: tuple[str, ...]) -> tuple[dict, dict]:
    """Return raw maps of those names, all different, and the truths."""
    torch.manual_seed(0)
    raw = {name: torch.randn(B, CHANNELS[name.split("_")[-1]], H, W) for name in names}
    return raw, {task.name: example(task.kind)[1] for task in TASKS}


def alone(raw: dict, truth: dict, name: str) -> float:
    kind = name.split("_")[-1]
    return task_loss(raw[name], truth[kind], kind).item()


def test_weighted_sum_of_initial_and_final():
    raw, truth = several(("depth", "semseg", "initial_depth", "initial_semseg"))
    total, final = MultiTaskLoss(TASKS, "scalarization")(raw, truth)
    expected = 2 * (alone(raw, truth, "depth") + alone(raw, truth, "initial_depth"))
    expected += 0.5 * (alone(raw, truth, "semseg") + alone(raw, truth, "initial_semseg"))
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert {name: loss.item() for name, loss in final.items()} == {
        name: alone(raw, truth, name) for name in ("depth", "semseg")
    }


def test_initial_loss_of_several_scales_is_their_mean():
    scales = tuple(f"scale_{scale}_{task}" for scale in range(4) for task in ("depth", "semseg"))
    raw, truth = several(("depth", "semseg", *scales))
    total, _ = MultiTaskLoss(TASKS, "scalarization")(raw, truth)
    expected = 0.0
    for task in TASKS:
        mean = sum(alone(raw, truth, f"scale_{scale}_{task.name}") for scale in range(4)) / 4
        expected += task.weight * (alone(raw, truth, task.name) + mean)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert initial_names(raw, "depth") == [f"scale_{scale}_depth" for scale in range(4)]


def test_baselines_have_no_initial_loss():
    raw, truth = several(("depth", "semseg"))
    total, _ = MultiTaskLoss(TASKS, "scalarization")(raw, truth)
    expected = 2 * alone(raw, truth, "depth") + 0.5 * alone(raw, truth, "semseg")
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_uncertainty_replaces_the_weights():
    raw, truth = several(("depth", "semseg", "initial_depth", "initial_semseg"))
    module = MultiTaskLoss(TASKS, "uncertainty")
    spread = {"depth": 0.7, "semseg": -0.3}
    with torch.no_grad():
        for name, value in spread.items():
            module.log_variances[name].fill_(value)
    total, _ = module(raw, truth)
    losses = {name: alone(raw, truth, name) + alone(raw, truth, f"initial_{name}") for name in spread}
    expected = sum(math.exp(-s) / 2 * losses[name] + s / 2 for name, s in spread.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    total.backward()
    for name, s in spread.items():
        slope = -math.exp(-s) / 2 * losses[name] + 0.5
        assert module.log_variances[name].grad.item() == pytest.approx(slope, rel=1e-5)


def test_a_task_without_truth_is_left_out():
    raw, truth = several(("depth", "semseg"))
    total, final = MultiTaskLoss(TASKS, "scalarization")(raw, {"depth": truth["depth"]})
    assert list(final) == ["depth"]
    assert total.item() == pytest.approx(2 * alone(raw, truth, "depth"), rel=1e-6)
