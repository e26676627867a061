"""The one decode, kind by kind, against plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.outputs import TaskOutputs, decode
from emadeploy.contract.preprocess import resize_bilinear
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 20))


def task_of(kind: str) -> TaskSpec:
    return TaskSpec(kind, channels=KINDS[kind].channels or 5)


def plain_decode(raw_CHW: np.ndarray, kind: str, size: tuple[int, int]) -> np.ndarray:
    """The table of contract/outputs.py, written down once more, whole maps at a time and in float64."""
    maps = resize_bilinear(raw_CHW, size)
    if kind in ("semseg", "human_parts"):
        return maps.argmax(axis=0)
    maps = maps.astype(np.float64)
    if kind == "depth":
        return maps[0].clip(0)
    if kind == "normals":
        return (maps / np.linalg.norm(maps, axis=0)).transpose(1, 2, 0)
    if kind == "edge":
        return 1 / (1 + np.exp(-maps[0]))
    return np.exp(maps[1]) / np.exp(maps).sum(axis=0)


@pytest.mark.parametrize("kind", KINDS)
@given(raw_size=SIZES, size=SIZES, seed=st.integers(0, 99))
def test_decode_equals_plain_arithmetic(kind: str, raw_size: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    task = task_of(kind)
    raw = np.random.default_rng(seed).normal(size=(1, task.channels, *raw_size)).astype(np.float32)
    before = raw.copy()
    decoded = decode(raw, task, size)
    assert decoded.dtype == KINDS[kind].dtype
    assert decoded.shape[:2] == size
    assert decoded.flags.c_contiguous
    np.testing.assert_allclose(decoded, plain_decode(raw[0], kind, size), atol=2e-4)
    np.testing.assert_array_equal(raw, before, "the raw map must not change")


def test_a_tie_between_classes_goes_to_the_first() -> None:
    assert not decode(np.zeros((1, 5, 4, 4), np.float32), task_of("semseg"), (4, 4)).any()


def test_normals_of_length_zero_stay_zero() -> None:
    normals = decode(np.zeros((3, 4, 4), np.float32), task_of("normals"), (4, 4))
    np.testing.assert_array_equal(normals, 0)


def test_probabilities_do_not_overflow() -> None:
    raw = np.array([-1e30, 0, 1e30], np.float32).reshape(1, 1, 3)
    np.testing.assert_array_equal(decode(raw, task_of("edge"), (1, 3)), [[0, 0.5, 1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(kind: str, poison: float) -> None:
    raw = np.zeros((1, task_of(kind).channels, 6, 6), np.float32)
    raw[0, -1, 3, 3] = poison
    with pytest.raises(ArtifactError, match=f"output '{kind}' holds values that are not finite"):
        decode(raw, task_of(kind), (6, 6))


@pytest.mark.parametrize("shape", [(4, 6, 6), (2, 5, 6, 6), (6, 6), (1, 4, 6, 6)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"expected \(5, height, width\)"):
        decode(np.zeros(shape, np.float32), task_of("semseg"), (6, 6))


def test_task_outputs_list_the_maps_that_are_there() -> None:
    depth = np.ones((2, 2), np.float32)
    outputs = TaskOutputs(1.5, depth=depth)
    assert list(outputs.maps) == ["depth"]
    assert outputs.maps["depth"] is depth
    assert outputs.semseg is None
