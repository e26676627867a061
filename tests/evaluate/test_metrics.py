"""The properties that the metrics of all tasks must have: their sums, their frames, what is absent or refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_frame import DEPTH, EDGE, NORMALS, PARTS, SALIENCY, SEMSEG, measure

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.tasks import KINDS
from emadeploy.data.sample import no_truth
from emadeploy.evaluate.metrics import METRICS, TALLIES, Metrics

ALL = (SEMSEG, DEPTH, NORMALS, EDGE, SALIENCY, PARTS)


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


@pytest.mark.parametrize("edges", ["f1", "odsf"])
@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_no_truth_and_a_truth_without_a_pixel_to_judge_come_to_the_same(task, edges):
    metrics = Metrics([task], edges)
    metrics.update(*random_frame(np.random.default_rng(11)))
    before = metrics.state()
    predicted, truth = random_frame(np.random.default_rng(12))
    metrics.update(predicted, {name: truth[name] for name in truth if name != task.name})
    metrics.update(predicted, {task.name: no_truth(task.kind, (6, 8))})
    np.testing.assert_array_equal(metrics.state(), before)
    assert metrics.frames == {task.name: 1}


def test_shapes_that_differ_are_refused():
    with pytest.raises(DataError, match=r"depth: the prediction has shape \(1, 2\), truth \(2, 1\)"):
        measure(DEPTH, [[1.0, 1.0]], [[1.0], [1.0]])


def test_metrics_of_other_tasks_are_not_merged():
    with pytest.raises(SpecError, match="different tasks"):
        Metrics([DEPTH]).merge(Metrics([SEMSEG]))
