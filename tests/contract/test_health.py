"""Health: what fits together in a made room, and what a corruption does to it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emadeploy.contract.errors import SpecError
from emadeploy.contract.geometry import Intrinsics
from emadeploy.contract.health import Health, HealthRange, health, judgeable
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec

TASKS = (TaskSpec("semseg", channels=13), TaskSpec("depth"), TaskSpec("normals"))

Room = tuple[TaskOutputs, Intrinsics]


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    """Made rooms with their truth in the place of a network's answers."""
    pytest.importorskip("embreex")
    from emadeploy.data.rooms.render import render_room

    made = []
    for index in range(4):
        room = render_room(7, index, 288, 384)
        labels = np.where(room.semseg < 0, 255, room.semseg).astype(np.uint8)
        outputs = TaskOutputs(0.0, semseg=labels, depth=room.depth, normals=room.normals)
        made.append((outputs, Intrinsics.from_matrix(room.intrinsics, room.depth.shape)))
    return made


def judged(room: Room) -> Health:
    found = health(room[0], TASKS, room[1])
    assert found is not None
    return found


def test_the_truth_is_in_good_health(rooms: list[Room]) -> None:
    for room in rooms:
        found = judged(room)
        assert found.angle < 10
        assert found.borders > 0.25  # by chance 0.2
        assert 0.4 < found.score <= 1
        assert found.distance == pytest.approx(np.median(room[0].depth), rel=0.1)


def turned(scale: tuple[float, float, float]) -> Callable[[TaskOutputs], TaskOutputs]:
    return lambda room: replace(room, normals=room.normals * np.float32(scale))


CORRUPTIONS: dict[str, Callable[[TaskOutputs], TaskOutputs]] = {
    "x of the normals flipped": turned((-1, 1, 1)),
    "y of the normals flipped": turned((1, -1, 1)),
    "normals away from the camera": turned((-1, -1, -1)),
    "x and y swapped": lambda room: replace(room, normals=room.normals[:, :, [1, 0, 2]]),
    "depth mirrored": lambda room: replace(room, depth=room.depth[:, ::-1]),
    "depth with an offset": lambda room: replace(room, depth=room.depth + np.float32(1)),
    "depth with a gamma": lambda room: replace(room, depth=np.sqrt(room.depth)),
    "depth that is flat": lambda room: replace(room, depth=np.full_like(room.depth, 2)),
    "labels shifted": lambda room: replace(room, semseg=np.roll(room.semseg, 40, axis=1)),
    "labels at random": lambda room: replace(
        room, semseg=np.random.default_rng(0).integers(0, 13, room.semseg.shape, np.uint8)
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_what_is_corrupted_is_in_worse_health(rooms: list[Room], corruption: str) -> None:
    well = [judged(room).score for room in rooms]
    ill = [judged((CORRUPTIONS[corruption](outputs), camera)).score for outputs, camera in rooms]
    assert all(bad < good for bad, good in zip(ill, well, strict=True))
    assert np.mean(ill) < 0.95 * np.mean(well)


def test_labels_that_are_shifted_farther_fit_less(rooms: list[Room]) -> None:
    def borders(pixels: int) -> float:
        shifted = [replace(outputs, semseg=np.roll(outputs.semseg, pixels, axis=1)) for outputs, _ in rooms]
        return float(np.mean([judged((outputs, rooms[0][1])).borders for outputs in shifted]))

    assert borders(0) > borders(12) > borders(48)


def test_a_depth_of_another_scale_shows_in_its_distance_alone(rooms: list[Room]) -> None:
    seen = HealthRange.of(judged(room) for room in rooms)
    for outputs, camera in rooms:
        well = judged((outputs, camera))
        assert seen.warning(well) is None
        millimetres = judged((replace(outputs, depth=outputs.depth * np.float32(1000)), camera))
        assert millimetres.score == pytest.approx(well.score, abs=0.02)
        said = seen.warning(millimetres)
        assert said is not None
        assert "median depth is" in said


def test_holes_are_left_out(rooms: list[Room]) -> None:
    outputs, camera = rooms[0]
    depth, normals = outputs.depth.copy(), outputs.normals.copy()
    depth[:80], normals[120:180, 60:120] = 0, 0
    depth[100:110, 100:110], depth[5, 5] = np.nan, np.inf
    normals[0, 0] = np.nan
    found = judged((replace(outputs, depth=depth, normals=normals), camera))
    assert found.angle < 10
    assert found.score > 0.4
    labels = np.full_like(outputs.semseg, 255)
    unlabelled = judged((replace(outputs, semseg=labels), camera))
    assert math.isnan(unlabelled.borders)
    assert unlabelled.score == pytest.approx(1 - unlabelled.angle / 90)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_nothing_to_judge_is_said(rooms: list[Room], value: float) -> None:
    outputs, camera = rooms[0]
    found = judged((replace(outputs, depth=np.full_like(outputs.depth, value)), camera))
    assert math.isnan(found.angle)
    assert math.isnan(found.distance)
    seen = HealthRange.of(judged(room) for room in rooms)
    assert seen.warning(found) is not None


def test_conventions_of_the_tasks_are_followed(rooms: list[Room]) -> None:
    outputs, camera = rooms[0]
    wanted = judged((outputs, camera))
    away = (TASKS[0], TASKS[1], TaskSpec("normals", direction="away_from_camera"))
    assert health(replace(outputs, normals=-outputs.normals), away, camera) == wanted
    inverse = (TASKS[0], TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"), TASKS[2])
    found = health(replace(outputs, depth=1 / outputs.depth), inverse, camera)
    assert found is not None
    assert (found.score, found.angle) == (pytest.approx(wanted.score, abs=0.02), pytest.approx(wanted.angle, abs=0.5))
    # Normals in the frame of a data set cannot be compared.
    dataset = (TASKS[0], TASKS[1], TaskSpec("normals", frame="dataset"))
    found = health(outputs, dataset, camera)
    assert found is not None
    assert math.isnan(found.angle)
    assert found.score == pytest.approx(found.borders)


def test_a_model_without_two_maps_to_compare_has_no_health(rooms: list[Room]) -> None:
    outputs, camera = rooms[0]
    assert not judgeable([TASKS[0], TASKS[2]])
    assert not judgeable([TASKS[1], TaskSpec("edge")])
    assert judgeable(TASKS[1:])
    assert health(replace(outputs, depth=None), TASKS[:1], camera) is None


def test_the_size_of_the_maps_changes_little(rooms: list[Room]) -> None:
    for outputs, camera in rooms:
        larger = TaskOutputs(0.0, **{name: array.repeat(2, 0).repeat(2, 1) for name, array in outputs.maps.items()})
        assert judged((larger, camera)).score == pytest.approx(judged((outputs, camera)).score, abs=0.1)


# The range.


def a_range() -> HealthRange:
    return HealthRange.of(Health(0.5 + 0.01 * i, 20 - i / 2, 0.4 + 0.01 * i, 2 + 0.1 * i) for i in range(11))


def test_the_range_of_what_was_seen() -> None:
    seen = a_range()
    assert seen.frames == 11
    assert seen.parts["score"] == pytest.approx({"low": 0.5, "median": 0.55, "high": 0.6})
    assert list(seen.parts) == ["score", "angle", "borders", "distance"]
    without = HealthRange.of([Health(0.5, math.nan, 0.5, 2.0), Health(math.nan, math.nan, math.nan, math.nan)])
    assert (without.frames, "angle" in without.parts) == (1, False)
    with pytest.raises(SpecError, match="no frame whose health can be told"):
        HealthRange.of([Health(math.nan, math.nan, math.nan, math.nan)])


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Health(0.55, 17, 0.45, 2.5), None),
        (Health(0.9, 2, 0.9, 2.5), None),
        (Health(0.55, 17, 0.45, math.nan), None),
        (Health(0.3, 60, 0.45, 2.5), "fit together by 0.30, .* 0.50 to 0.60 \\(normals 60 degrees off the depth"),
        (Health(0.3, 17, 0.2, 2.5), "20% of label borders on edges, usually 45%"),
        (Health(0.55, 17, 0.45, 2500), "the median depth is 2.5e\\+03, on known frames 2 to 3"),
        (Health(0.55, 17, 0.45, 0.5), "the median depth is 0.5"),
        (Health(math.nan, math.nan, math.nan, math.nan), "nothing to judge"),
    ],
)
def test_a_frame_out_of_range_is_a_warning(found: Health, says: str | None) -> None:
    warning = a_range().warning(found)
    if says is None:
        assert warning is None
        return
    assert warning is not None
    with pytest.raises(ValueError, match=says):
        raise ValueError(warning)


def test_there_and_back() -> None:
    seen = a_range()
    assert HealthRange.from_dict(seen.to_dict()) == seen


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ({"frames": 0}, "health: frames 0 is not a positive int"),
        ({"frames": "many"}, "frames 'many' is not a positive int"),
        ({"parts": []}, "parts is not a mapping"),
        ({"parts": {}}, "it has no range of 'score'"),
        ({"parts": {"score": {"low": 0.1, "median": 0.2}}}, "score: high None is not a number"),
    ],
)
def test_a_range_that_is_none(harm: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        HealthRange.from_dict({**a_range().to_dict(), **harm})
