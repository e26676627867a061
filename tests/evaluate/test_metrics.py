"""The metrics against hand-computed cases, other implementations, and the properties they must have."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.evaluate.metrics import METRICS, TALLIES, Metrics
from emadeploy.evaluate.tallies import ANGLE_BIN, LOG_FLOOR, angles_between

SEMSEG = TaskSpec("semseg", channels=3)
DEPTH = TaskSpec("depth")
NORMALS = TaskSpec("normals")
EDGE = TaskSpec("edge")
SALIENCY = TaskSpec("saliency")
PARTS = TaskSpec("human_parts", channels=7)
ALL = (SEMSEG, DEPTH, NORMALS, EDGE, SALIENCY, PARTS)


def measure(task: TaskSpec, predicted: object, truth: object) -> dict[str, float]:
    """Return the metrics of one frame of one task."""
    dtype = np.uint8 if task.kind in ("semseg", "human_parts") else np.float32
    true_dtype = np.uint8 if task.kind in ("edge", "saliency") else dtype
    metrics = Metrics([task])
    metrics.update({task.name: np.asarray(predicted, dtype)}, {task.name: np.asarray(truth, true_dtype)})
    return metrics.compute().get(task.name, {})


def random_frame(rng: np.random.Generator, height: int = 6, width: int = 8) -> tuple[dict, dict]:
    """Return a prediction and a truth of every task, invalid pixels among them."""
    size = (height, width)
    invalid = rng.random(size) < 0.2
    predicted, truth = {}, {}
    for task in (SEMSEG, PARTS):
        predicted[task.name] = rng.integers(0, task.channels, size, np.uint8)
        truth[task.name] = np.where(invalid, 255, rng.integers(0, task.channels, size)).astype(np.uint8)
    predicted["depth"] = rng.uniform(0, 5, size).astype(np.float32)
    truth["depth"] = np.where(invalid, 0, rng.uniform(0.5, 5, size)).astype(np.float32)
    predicted["normals"] = rng.normal(size=(*size, 3)).astype(np.float32)
    truth["normals"] = np.where(invalid[..., None], 0, rng.normal(size=(*size, 3))).astype(np.float32)
    for name in ("edge", "saliency"):
        predicted[name] = rng.random(size).astype(np.float32)
        truth[name] = np.where(invalid, 255, rng.integers(0, 2, size)).astype(np.uint8)
    return predicted, truth


def test_the_tables_name_every_kind_and_every_metric_that_is_computed():
    assert set(METRICS) == set(KINDS) == set(TALLIES)
    metrics = Metrics(ALL)
    metrics.update(*random_frame(np.random.default_rng(0)))
    computed = metrics.compute()
    assert {task: list(row) for task, row in computed.items()} == {
        task.name: [m.name for m in METRICS[task.kind]] for task in ALL
    }
    assert all(type(value) is float for row in computed.values() for value in row.values())


# --- class maps


def test_miou_by_hand():
    # Class 0: hit 1, union 2. Class 1: hit 1, union 3. Class 2: predicted twice, once where there is truth: union 1.
    values = measure(SEMSEG, [[0, 1, 1, 2, 2]], [[0, 0, 1, 1, 255]])
    assert values["miou"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 0) / 3)
    assert values["pixel_accuracy"] == pytest.approx(50)


def test_a_class_that_occurs_nowhere_does_not_lower_the_mean():
    assert measure(SEMSEG, [[0, 1]], [[0, 1]])["miou"] == 100


def test_a_class_predicted_only_on_ignored_pixels_does_not_occur():
    assert measure(SEMSEG, [[0, 2]], [[0, 255]])["miou"] == 100


def test_no_answer_is_wrong_but_blames_no_class():
    values = measure(SEMSEG, [[0, 255]], [[0, 0]])
    assert values == {"miou": 50.0, "pixel_accuracy": 50.0}
    assert measure(SEMSEG, [[255, 255]], [[0, 1]]) == {"miou": 0.0, "pixel_accuracy": 0.0}


@pytest.mark.parametrize(
    ("predicted", "truth", "message"), [(3, 0, "prediction holds the value 3"), (0, 7, "truth holds the value 7")]
)
def test_a_class_that_the_task_lacks_is_refused(predicted, truth, message):
    with pytest.raises(DataError, match=f"semseg: .*{message}"):
        measure(SEMSEG, [[predicted]], [[truth]])


def test_the_iou_of_each_class_has_its_name():
    named = TaskSpec("semseg", class_names=("bed", "books", "ceiling", "chair"))
    maps = ([[0, 1, 1, 2, 2]], [[0, 0, 1, 1, 255]])
    for task, names in ((named, ("bed", "books", "ceiling")), (TaskSpec("semseg", channels=4), "012")):
        metrics = Metrics([task, DEPTH])
        assert metrics.per_class() == {}
        metrics.update(*({"semseg": np.asarray(map_HW, np.uint8)} for map_HW in maps))
        # The fourth class occurs nowhere; the third is never true.
        assert metrics.per_class() == {"semseg": pytest.approx(dict(zip(names, (50, 100 / 3, 0), strict=True)))}


def test_the_confusion_is_that_of_all_frames_and_not_a_mean_of_frames():
    metrics = Metrics([SEMSEG])
    for predicted, truth in (([[0, 0, 0, 0]], [[0, 0, 0, 1]]), ([[1]], [[1]])):
        metrics.update({"semseg": np.asarray(predicted, np.uint8)}, {"semseg": np.asarray(truth, np.uint8)})
    assert metrics.compute()["semseg"] == pytest.approx({"miou": (75 + 50) / 2, "pixel_accuracy": 80})


# --- depth


def test_depth_by_hand():
    values = measure(DEPTH, [[1.0, 3.0, 9.0, 0.0]], [[2.0, 3.0, 0.0, 1.0]])
    assert values["abs"] == pytest.approx((1 + 0 + 1) / 3)
    assert values["rel"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert values["rmse"] == pytest.approx((2 / 3) ** 0.5)
    assert values["delta1"] == values["delta2"] == values["delta3"] == pytest.approx(100 / 3)


def test_the_logarithm_of_depth_by_hand():
    assert measure(DEPTH, [[2.0, 3.0]], [[1.0, 3.0]])["log_rmse"] == pytest.approx(np.log(2) / 2**0.5)
    # No answer counts as LOG_FLOOR, and so does what is under it.
    for guess in (0.0, 1e-5, LOG_FLOOR):
        assert measure(DEPTH, [[guess]], [[1.0]])["log_rmse"] == pytest.approx(np.log(1000))


def test_depth_under_zero_counts_as_zero():
    assert measure(DEPTH, [[-3.0]], [[2.0]]) == measure(DEPTH, [[0.0]], [[2.0]])
    assert measure(DEPTH, [[-3.0]], [[2.0]])["abs"] == 2


def test_inverse_depth_is_judged_in_its_own_unit():
    inverse = TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger")
    values = measure(inverse, [[0.02, 0.3]], [[0.04, 0.2]])
    assert (values["abs"], values["rel"]) == pytest.approx(((0.02 + 0.1) / 2, (0.5 + 0.5) / 2))


def test_depth_thresholds_are_factors_to_either_side():
    values = measure(DEPTH, [[1.2, 1 / 1.2, 1.3, 1 / 1.6, 3.0]], np.ones((1, 5)))
    assert (values["delta1"], values["delta2"], values["delta3"]) == pytest.approx((40, 60, 80))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_depth_that_is_not_finite_is_refused(value):
    with pytest.raises(DataError, match=r"depth: .*not finite"):
        measure(DEPTH, [[value]], [[1.0]])
    assert measure(DEPTH, [[value, 1.0]], [[0.0, 1.0]])["abs"] == 0  # where there is no truth it does not matter


# --- normals


def test_normals_by_hand():
    up, right, diagonal = (0, 0, 1), (1, 0, 0), (0, 2, 2)
    values = measure(NORMALS, [[up, up, up, up]], [[up, diagonal, right, (0, 0, 0)]])
    assert values["mean"] == pytest.approx((0 + 45 + 90) / 3)
    assert values["median"] == pytest.approx(45, abs=0.011)
    assert values["rmse"] == pytest.approx(((45**2 + 90**2) / 3) ** 0.5)
    assert values["within_11_25"] == values["within_22_5"] == values["within_30"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(("degrees", "name"), [(11.25, "within_11_25"), (22.5, "within_22_5"), (30, "within_30")])
def test_shares_of_normals_begin_under_their_limit(degrees, name):
    def share(angle: float) -> float:
        radians = np.radians(angle)
        return measure(NORMALS, [[(np.sin(radians), 0, np.cos(radians))]], [[(0, 0, 1)]])[name]

    assert share(degrees - 0.02) == 100
    assert share(degrees + 0.02) == 0


def test_no_normal_is_a_right_angle_off():
    assert measure(NORMALS, [[(0, 0, 0)]], [[(0, 0, 1)]])["mean"] == 90


def test_angles_are_those_of_the_arccos_and_exact_at_the_ends():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 100, 3))
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(angles_between(a, b), np.degrees(np.arccos(cosine)))
    assert not angles_between(a, 3 * a).max() > 1e-5
    np.testing.assert_allclose(angles_between(a, -a), 180)


def test_median_and_shares_agree_with_numpy():
    rng = np.random.default_rng(2)
    predicted, truth = rng.normal(size=(2, 40, 50, 3)).astype(np.float32)
    predicted = truth + 0.4 * predicted
    angles = angles_between(predicted, truth)
    values = measure(NORMALS, predicted, truth)
    assert values["mean"] == pytest.approx(angles.mean())
    assert values["rmse"] == pytest.approx(np.sqrt(np.mean(angles**2)))
    assert values["median"] == pytest.approx(np.median(angles), abs=ANGLE_BIN)
    assert values["within_22_5"] == pytest.approx(100 * np.mean(angles < 22.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 180), min_size=1, max_size=40))
def test_the_median_is_within_a_bin_of_the_true_one(degrees):
    radians = np.radians(degrees)
    predicted = np.stack([np.sin(radians), np.zeros_like(radians), np.cos(radians)], axis=-1)[None]
    median = measure(NORMALS, predicted, np.broadcast_to((0, 0, 1), predicted.shape))["median"]
    middle = np.sort(degrees)[(len(degrees) - 1) // 2]
    assert median == pytest.approx(middle, abs=ANGLE_BIN + 1e-4)  # float32 moves angles by a little


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_normals_that_are_not_finite_are_refused(value):
    with pytest.raises(DataError, match=r"normals: .*not finite"):
        measure(NORMALS, [[(value, 0, 1)]], [[(0, 0, 1)]])
    assert measure(NORMALS, [[(value, value, 1), (0, 0, 1)]], [[(0, 0, 0), (0, 0, 1)]])["mean"] == 0


# --- edges and saliency


def test_best_f_by_hand():
    # Ordered by prediction, the truth reads 1, 0, 1, 0: cutting after the third gives P = 2/3, R = 1.
    predicted, truth = [[0.9, 0.8, 0.7, 0.1, 0.95]], [[1, 0, 1, 0, 255]]
    assert measure(EDGE, predicted, truth) == {"f1": pytest.approx(100 * 2 * (2 / 3) / (2 / 3 + 1))}
    # With beta^2 = 0.3, precision weighs more: cutting after the first (P = 1, R = 1/2) is better.
    assert measure(SALIENCY, predicted, truth)["maxf"] == pytest.approx(100 * 1.3 * 0.5 / (0.3 + 0.5))


def test_best_f_is_the_best_over_all_thresholds():
    rng = np.random.default_rng(4)
    predicted, truth = rng.integers(0, 101, (30, 30)) / 100, rng.integers(0, 2, (30, 30))

    def f1(threshold: float) -> float:
        positive = np.float32(predicted) >= np.float32(threshold)
        return 2 * np.sum(positive & (truth == 1)) / (positive.sum() + truth.sum())

    assert measure(EDGE, predicted, truth)["f1"] == pytest.approx(100 * max(f1(k / 100) for k in range(101)))


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [(1.5, 1, "not a probability"), (np.nan, 1, "not a probability"), (0.5, 2, "truth holds the value 2")],
)
def test_what_is_not_a_probability_or_a_binary_truth_is_refused(predicted, truth, message):
    with pytest.raises(DataError, match=f"edge: .*{message}"):
        measure(EDGE, [[predicted]], [[truth]])


# --- all of them


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_a_perfect_prediction_is_perfect(task):
    _, truth = random_frame(np.random.default_rng(5))
    predicted = truth[task.name] if task.kind not in ("edge", "saliency") else (truth[task.name] == 1)
    values = measure(task, predicted, truth[task.name])
    for metric in METRICS[task.kind]:
        if metric.name == "median":
            assert values["median"] <= 0.01
        else:
            assert values[metric.name] == pytest.approx(100 if metric.higher_is_better else 0)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_without_a_valid_pixel_the_task_is_absent(task):
    predicted, truth = random_frame(np.random.default_rng(6))
    nothing = np.zeros_like if task.kind in ("depth", "normals") else lambda a: np.full_like(a, 255)
    assert measure(task, predicted[task.name], nothing(truth[task.name])) == {}
    assert Metrics([task]).compute() == {}


def test_without_a_positive_pixel_there_is_no_f():
    assert measure(EDGE, [[0.5]], [[0]]) == {}
    assert measure(SALIENCY, [[0.5]], [[0]]) == {}  # nor is half a task reported


def test_saliency_has_255_thresholds_over_zero():
    # One step apart, two values are two thresholds; what is 0 is found by none.
    predicted, truth = np.array([[100, 101, 0]]) / 255, [[0, 1, 1]]
    assert measure(SALIENCY, predicted, truth)["maxf"] == pytest.approx(100 * 1.3 * 0.5 / (0.3 + 0.5))
    assert measure(SALIENCY, [[0.0, 0.0]], [[1, 1]])["maxf"] == 0


def saliency(*frames: tuple[list, list]) -> dict[str, float]:
    """Return the metrics of saliency of several frames."""
    metrics = Metrics([SALIENCY])
    for predicted, truth in frames:
        maps = np.asarray([predicted], np.float32), np.asarray([truth], np.uint8)
        metrics.update(*({"saliency": map_HW} for map_HW in maps))
    return metrics.compute()["saliency"]


def test_maxf_is_of_the_pixels_of_all_pictures():
    # Together 3 of 4 that are found are right, and 3 of 3 are found.
    values = saliency(([1, 1, 1], [1, 1, 1]), ([1], [0]))
    assert values["maxf"] == pytest.approx(100 * 1.3 * 0.75 * 1 / (0.3 * 0.75 + 1))


def test_the_iou_of_saliency_is_a_mean_over_pictures_at_one_threshold():
    wide, narrow = ([0.8, 0.8, 0.3, 0.0], [1, 1, 0, 0]), ([0.3], [1])
    # Over 0.3: (1 + 0) / 2; under it: (2/3 + 1) / 2.
    assert saliency(wide, narrow)["miou"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    # Nothing salient and nothing found is right; ignored everywhere is no picture.
    assert saliency(wide, ([0.1], [0]))["miou"] == pytest.approx(100 * (1 + 1) / 2)
    assert saliency(wide, ([0.1], [255])) == saliency(wide)


def test_the_thresholds_of_that_iou_are_left_by_what_is_on_them():
    # 0.9, the last threshold, finds what is above it alone.
    assert saliency(([0.9, 0.91], [0, 1]))["miou"] == 100
    assert saliency(([0.9, 0.91], [1, 1]), ([0.21, 0.2], [1, 0]))["miou"] == 100
    assert saliency(([0.2], [1]))["miou"] == 0


def test_the_error_of_saliency_is_a_mean_over_pictures():
    assert saliency(([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]), ([0.9], [1]))["mae"] == pytest.approx((0.5 + 0.1) / 2)


def metrics_of(frames: list) -> Metrics:
    """Return the metrics of some frames, of all tasks."""
    metrics = Metrics(ALL)
    for predicted, truth in frames:
        metrics.update(predicted, truth)
    return metrics


def assert_same(a: Metrics, b: Metrics) -> None:
    """Check that both say the same of the same number of frames."""
    assert a.frames == b.frames
    assert list(a.compute()) == list(b.compute())
    for task, row in a.compute().items():
        assert b.compute()[task] == pytest.approx(row)


@st.composite
def frames_of_some_tasks(draw: st.DrawFn) -> list:
    """Up to five frames; each lacks the truth of some tasks."""
    names = [task.name for task in ALL]
    frames = []
    for _ in range(draw(st.integers(0, 5))):
        predicted, truth = random_frame(np.random.default_rng(draw(st.integers(0, 1000))))
        known = draw(st.sets(st.sampled_from(names)))
        frames.append((predicted, {name: truth[name] for name in names if name in known}))
    return frames


@settings(max_examples=25, deadline=None)
@given(frames=frames_of_some_tasks(), data=st.data())
def test_order_and_merging_do_not_matter(frames, data):
    joint = metrics_of(frames)
    assert_same(metrics_of(data.draw(st.permutations(frames))), joint)
    cut = data.draw(st.integers(0, len(frames)))
    merged = metrics_of(frames[:cut])
    merged.merge(pickle.loads(pickle.dumps(metrics_of(frames[cut:]))))
    assert_same(merged, joint)


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(frames_of_some_tasks(), min_size=1, max_size=4))
def test_the_sum_of_the_states_is_the_state_of_all_frames(parts):
    states = [metrics_of(part).state() for part in parts]
    assert {state.dtype for state in states} == {np.dtype(np.float64)}
    assert len({state.shape for state in states}) == 1
    assert_same(
        Metrics.from_state(ALL, np.sum(states, axis=0)), metrics_of([frame for part in parts for frame in part])
    )


def test_a_state_is_a_copy():
    metrics = metrics_of([random_frame(np.random.default_rng(8))])
    before, state = metrics.compute(), metrics.state()
    again = Metrics.from_state(ALL, state)
    state += 1
    assert metrics.compute() == again.compute() == before
    again.update(*random_frame(np.random.default_rng(9)))
    assert metrics.compute() == before != again.compute()


def test_a_state_of_other_tasks_is_refused():
    state = Metrics([DEPTH]).state()
    Metrics.from_state([DEPTH], state)
    with pytest.raises(SpecError, match=r"is not one of the tasks semseg: they have \(\d+,\)"):
        Metrics.from_state([SEMSEG], state)


def test_frames_are_counted_per_task():
    metrics = Metrics([DEPTH, SEMSEG, EDGE])
    for known in (("depth",), ("depth", "semseg"), ()):
        predicted, truth = random_frame(np.random.default_rng(10))
        metrics.update(predicted, {name: truth[name] for name in known})
    assert metrics.frames == {"depth": 2, "semseg": 1, "edge": 0}


def test_a_task_without_truth_is_skipped_and_one_without_prediction_refused():
    predicted, truth = random_frame(np.random.default_rng(7))
    metrics = Metrics([DEPTH, SEMSEG])
    metrics.update(predicted, {"depth": truth["depth"], "edge": truth["edge"]})
    assert list(metrics.compute()) == ["depth"]
    with pytest.raises(DataError, match="no 'semseg'; it has depth"):
        metrics.update({"depth": predicted["depth"]}, truth)


def test_shapes_that_differ_are_refused():
    with pytest.raises(DataError, match=r"depth: the prediction has shape \(1, 2\), truth \(2, 1\)"):
        measure(DEPTH, [[1.0, 1.0]], [[1.0], [1.0]])


def test_metrics_of_other_tasks_are_not_merged():
    with pytest.raises(SpecError, match="different tasks"):
        Metrics([DEPTH]).merge(Metrics([SEMSEG]))
