"""Tables of ranges: found once, kept, and never used for anything else."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from emadeploy.calibrate import table
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec

RECIPE = replace(load_recipe("onnxruntime-int8"), method="minmax", percentile=None, types="U8S8")
SPEC = ModelSpec("tiny", "emanet", (TaskSpec("depth"),), InputSpec(64, 96))


@pytest.fixture
def graph(build, write_graph, tmp_path):
    """Return a graph image -> a = 2 image -> b = max(a - 1, 0)."""
    nodes = [
        ("Mul", "double/Mul", ["image", "two"], ["a"], {}),
        ("Sub", "less/Sub", ["a", "one"], ["c"], {}),
        ("Relu", "less/Relu", ["c"], ["b"], {}),
    ]
    model = build(nodes, {"two": np.float32(2), "one": np.float32(1)}, {"b": (1, 3, 64, 96)})
    folder = tmp_path / "graph"
    folder.mkdir()
    return write_graph(model, SPEC, folder)


def find(graph, frames, recipe=RECIPE, tensors=("image", "a", "b"), **options):
    return table.ranges_of(graph, onnx.load(graph.path), tensors, frames, recipe, **options)


@pytest.fixture
def runs(monkeypatch):
    """Return the list of runs over the frames that were made."""
    made = []
    original = table.observe
    monkeypatch.setattr(table, "observe", lambda *args, **options: made.append(1) or original(*args, **options))
    return made


def cached() -> list:
    return sorted(table.cache_folder().glob("*.json"))


def test_ranges_are_those_of_the_values_over_all_frames(graph, frames):
    images = np.concatenate(list(frames))
    found = find(graph, frames)
    assert found["image"] == pytest.approx((0, images.max()))
    assert found["a"] == pytest.approx((0, 2 * images.max()))
    assert found["b"] == pytest.approx((0, max(2 * images.max() - 1, 0)))


def test_a_table_is_found_once_and_survives_the_process(graph, frames, runs):
    first = find(graph, frames)
    assert find(graph, frames) == first
    assert len(runs) == 1
    assert len(cached()) == 1


def test_a_table_is_never_used_for_another_graph_frames_or_recipe(
    graph, frames, runs, build, write_graph, make_frames, tmp_path
):
    find(graph, frames)
    find(graph, make_frames(seed=1))
    find(graph, frames, replace(RECIPE, method="mse"))
    folder = tmp_path / "other"
    folder.mkdir()
    nodes = [("Mul", "double/Mul", ["image", "two"], ["a"], {}), ("Relu", "less/Relu", ["a"], ["b"], {})]
    other = write_graph(build(nodes, {"two": np.float32(3)}, {"b": (1, 3, 64, 96)}), SPEC, folder)
    assert find(other, frames)["a"][1] > find(graph, frames)["a"][1]
    assert len(runs) == len(cached()) == 4


@pytest.mark.parametrize("damage", ["cut", "value", "digest", "schema", "empty", "list"])
def test_a_damaged_table_is_made_again(graph, frames, runs, damage):
    first = find(graph, frames)
    [path] = cached()
    text = path.read_text()
    data = json.loads(text)
    if damage == "value":
        data["ranges"]["a"][1] *= 2
    elif damage == "digest":
        data["digests"]["frames"] = "0" * 64
    elif damage == "schema":
        data["schema"] = 99
    path.write_text({"cut": text[: len(text) // 2], "empty": "", "list": "[]"}.get(damage, json.dumps(data)))
    assert find(graph, frames) == first
    assert len(runs) == 2
    assert json.loads(path.read_text()) == json.loads(text)


def test_a_table_that_lacks_a_tensor_is_made_again(graph, frames, runs):
    find(graph, frames, tensors=("a",))
    assert set(find(graph, frames, tensors=("a", "b"))) == {"a", "b"}
    assert len(runs) == 2


@pytest.mark.parametrize("memory", [1, 10**9])
def test_little_memory_means_more_runs_and_the_same_values(graph, frames, memory):
    calls = []
    seen = table.observe(
        onnx.load(graph.path),
        ("image", "a", "b"),
        frames,
        graph,
        memory=memory,
        progress=lambda done, total: calls.append((done, total)),
    )
    total = len(frames) * (2 if memory == 1 else 1)
    assert calls == [(done, total) for done in range(1, total + 1)]
    whole = table.observe(onnx.load(graph.path), ("image", "a", "b"), frames, graph)
    for name, histogram in seen.items():
        np.testing.assert_array_equal(histogram.counts, whole[name].counts)
        assert histogram.counts.sum() == len(frames) * 3 * 64 * 96


def test_the_input_alone_can_be_watched(graph, frames):
    assert find(graph, frames, tensors=("image",))["image"][1] > 0


def test_a_network_that_answers_nan_is_refused(build, write_graph, frames, tmp_path):
    nodes = [("Log", "bad/Log", ["image"], ["a"], {}), ("Relu", "less/Relu", ["a"], ["b"], {})]
    broken = write_graph(build(nodes, {}, {"b": (1, 3, 64, 96)}), SPEC, tmp_path)
    with pytest.raises(CalibrationError, match=r"'a' on frame \d+ of structured:0 is not finite: the network itself"):
        find(broken, frames, tensors=("a",))


def test_a_cache_that_cannot_be_written_is_named(graph, frames, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match=r"cannot be kept in .*file.*EMADEPLOY_CACHE chooses the place"):
        find(graph, frames, cache_dir=tmp_path / "file")


def test_an_answer_that_the_layout_of_convolutions_loses_is_found_without_it(graph, monkeypatch):
    tried = []

    def session(data, options, **arguments):
        tried.append(options.graph_optimization_level)
        if options.graph_optimization_level == table.ort.GraphOptimizationLevel.ORT_ENABLE_ALL:
            raise RuntimeError("Failed to find node output or a constant initializer producing output: b")
        return "a session"

    monkeypatch.setattr(table.ort, "InferenceSession", session)
    assert table._session(onnx.load(graph.path), ["b"]) == "a session"
    assert len(tried) == 2


def test_a_residual_beside_its_sum_is_watched(build):
    """As in a downsampling block: ONNX Runtime 1.32 loses the residual on some CPUs."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (54, 3, 3, 3), "w1": (18, 54, 3, 3), "w2": (18, 18, 3, 3), "w3": (18, 54, 1, 1)}
    constants = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {f"b{name[1]}": np.zeros(shape[0], np.float32) for name, shape in shapes.items()}
    nodes = [
        ("Conv", "stem/Conv", ["image", "w0", "b0"], ["a"], {"pads": [1] * 4}),
        ("Relu", "stem/Relu", ["a"], ["b"], {}),
        ("Conv", "block.downsample/Conv", ["b", "w3", "b3"], ["d"], {}),
        ("Conv", "block.conv1/Conv", ["b", "w1", "b1"], ["c"], {"pads": [1] * 4}),
        ("Relu", "block/Relu", ["c"], ["e"], {}),
        ("Conv", "block.conv2/Conv", ["e", "w2", "b2"], ["f"], {"pads": [1] * 4}),
        ("Add", "block/Add", ["f", "d"], ["g"], {}),
        ("Relu", "block/Relu_1", ["g"], ["depth"], {}),
    ]
    session = table._session(build(nodes, constants, {"depth": (1, 18, 64, 96)}), ["b", "d", "e"])
    b, d = session.run(["b", "d"], {"image": rng.normal(size=(1, 3, 64, 96)).astype(np.float32)})
    np.testing.assert_allclose(d[0, :, 5, 7], constants["w3"][:, :, 0, 0] @ b[0, :, 5, 7], rtol=1e-4, atol=1e-4)
