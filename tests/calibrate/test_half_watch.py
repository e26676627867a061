"""What tensors come to, against the tensors themselves."""

import numpy as np
import pytest

from emadeploy.calibrate.half_graph import FloatGraph
from emadeploy.calibrate.half_watch import watch

RNG = np.random.default_rng(3)
FEEDS = [{"image": (factor * RNG.normal(0, 1, (1, 3, 64, 96))).astype(np.float32)} for factor in (1, 5, 2)]
NODES = [
    ("Mul", "a/Mul", ["image", "two"], ["x"], {}),
    ("Relu", "a/Relu", ["x"], ["r"], {}),
    ("Neg", "a/Neg", ["r"], ["n"], {}),
    ("Concat", "a/Concat", ["image", "n"], ["both"], {"axis": 1}),
    ("Exp", "a/Exp", ["both"], ["answer"], {}),
]


@pytest.fixture
def seen(build):
    graph = FloatGraph(build(NODES, {"two": np.array(2, np.float32)}, {"answer": (1, 6, 64, 96)}))
    calls: list[tuple[int, int]] = []
    found = watch(graph, FEEDS, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    return found


def test_the_largest_magnitude_of_all_frames_and_where_and_the_smallest_mean(seen):
    images = [feed["image"].astype(np.float64) for feed in FEEDS]
    # Of what is negative throughout, too.
    for name, values in {"image": images, "n": [-2 * image.clip(0) for image in images]}.items():
        magnitudes = [np.abs(value).max() for value in values]
        assert seen[name].largest == pytest.approx(max(magnitudes), rel=1e-6)
        assert seen[name].frame == int(np.argmax(magnitudes))
        assert seen[name].rms == pytest.approx(min(np.sqrt(np.mean(value**2)) for value in values), rel=1e-4)


def test_what_is_moved_or_cut_comes_to_what_it_was_and_constants_to_nothing(seen):
    assert seen["r"] == seen["x"]
    assert seen["both"] == max((seen["image"], seen["n"]), key=lambda found: found.largest)
    assert "two" not in seen
