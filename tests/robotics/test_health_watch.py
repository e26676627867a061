"""The watch over a stream: quiet for one odd frame, loud for many, and loud once."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.health import Health, HealthRange
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.health import FRAMES, Checkup, Watch

pytest.importorskip("onnxruntime")

#: A wall that is looked at squarely, as the network would see it.
ROWS, COLUMNS = 96, 128
LABELS = np.zeros((ROWS, COLUMNS), np.uint8)
LABELS[:, 64:] = 1
DEPTH = np.where(LABELS == 0, 2.0, 3.0).astype(np.float32)
NORMALS = np.broadcast_to(np.float32([0, 0, -1]), (ROWS, COLUMNS, 3)).copy()
WELL = TaskOutputs(0.0, semseg=LABELS, depth=DEPTH, normals=NORMALS)
ILL = TaskOutputs(0.0, semseg=LABELS, depth=DEPTH, normals=NORMALS[:, :, [2, 1, 0]])


@pytest.fixture
def watch(make_artifact: Callable[..., Path]) -> Watch:
    seen = HealthRange.of([Health(0.6, 20.0, 0.4, 1.0), Health(0.9, 5.0, 0.9, 4.0)])
    with load(make_artifact(health=seen.to_dict())) as perception:
        return Watch(perception)


def test_a_warning_comes_once_and_goes(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "emadeploy"):
        for _ in range(FRAMES):
            assert watch.look(WELL).score > 0.6
        watch.look(ILL)
        assert watch.warning is None
        for _ in range(FRAMES):
            assert watch.look(ILL).score < 0.5
        assert watch.warning is not None
        assert "normals 90 degrees off the depth" in watch.warning
        for _ in range(FRAMES):
            watch.look(WELL)
        assert watch.warning is None
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "INFO"]
    assert "back in the range" in said[1][1]


def test_a_depth_without_values_is_a_warning(watch: Watch) -> None:
    blind = TaskOutputs(0.0, semseg=LABELS, depth=np.zeros_like(DEPTH), normals=NORMALS)
    for _ in range(FRAMES):
        watch.look(blind)
    assert watch.warning is not None


def test_an_artifact_without_a_range(make_artifact: Callable[..., Path]) -> None:
    with load(make_artifact()) as perception, pytest.raises(ArtifactError, match="'tiny' keeps no range of health"):
        Watch(perception)


def test_a_checkup_names_the_frame_at_which_a_warning_came(make_artifact: Callable[..., Path]) -> None:
    seen = HealthRange.of([Health(0.6, 20.0, 0.4, 1.0), Health(0.9, 5.0, 0.9, 4.0)])
    said: list[str] = []
    with load(make_artifact(health=seen.to_dict())) as perception:
        checkup = Checkup(perception, said.append)
    pixels = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    for index in range(2 * FRAMES):
        checkup.write(Frame(f"{index}.png", pixels, 0.0), WELL if index < FRAMES else ILL)
    assert checkup.warnings == said
    # The median of the last 15 turns with the eighth frame that is ill.
    assert [warning.split(":")[0] for warning in said] == [f"frame {FRAMES + FRAMES // 2}.png"]
    told = checkup.to_dict()
    assert (told["low"], told["high"], told["warnings"]) == (0.6, 0.9, said)
    assert len(checkup.scores) == 2 * FRAMES
