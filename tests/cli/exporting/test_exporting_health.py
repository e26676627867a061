"""The range of health that an export keeps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy import load
from emadeploy.cli.exporting.health import FRAMES, keep_health, note_health
from emadeploy.contract.health import HealthRange, health
from emadeploy.contract.manifest import Manifest

pytest.importorskip("onnxruntime")

Make = Callable[..., Path]


def frames(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("frame_size", [None, (40, 60)])
def test_the_range_is_that_of_the_engine_on_the_frames(make_artifact: Make, frame_size: tuple[int, int] | None) -> None:
    artifact = make_artifact(frame_size=frame_size)
    manifest = note_health(artifact, frames(4), "noise")
    assert manifest == Manifest.read(artifact)
    assert manifest.health is not None
    assert manifest.health["data"] == "noise"
    seen = HealthRange.from_dict(manifest.health)
    assert seen.frames == 4
    if frame_size is None:
        with load(artifact) as perception:
            found = [health(perception(frame), perception.spec.tasks) for frame in frames(4)]
        scores = [one.score for one in found if one is not None]
        assert (seen.parts["score"]["low"], seen.parts["score"]["high"]) == (min(scores), max(scores))


def test_a_few_frames_are_enough(make_artifact: Make) -> None:
    taken = iter(frames(2 * FRAMES))
    manifest = note_health(make_artifact(), taken, "noise")
    assert manifest.health is not None
    assert manifest.health["frames"] <= FRAMES
    assert len(list(taken)) >= FRAMES - 1


def test_random_weights_have_no_health(make_artifact: Make) -> None:
    artifact = make_artifact(source={"untrained": True})
    assert note_health(artifact, frames(2), "noise").health is None
    assert note_health(make_artifact("other"), [], "none").health is None


def test_another_engine_may_run_in_its_place(make_artifact: Make) -> None:
    portable = make_artifact("portable", precision={})
    manifest = note_health(portable, frames(2), "noise", judged=make_artifact("stand-in"))
    assert manifest.health is not None
    assert not manifest.compiled
    assert Manifest.read(portable) == manifest


def test_frames_that_ran_already_give_the_same_range(make_artifact: Make) -> None:
    artifact = make_artifact()
    wanted = note_health(artifact, frames(4), "noise").health
    with load(artifact) as perception:
        seen = [health(perception(frame), perception.spec.tasks) for frame in frames(4)]
    assert keep_health(artifact, [one for one in seen if one is not None], "noise").health == wanted


def test_where_nothing_was_seen_the_manifest_stays(make_artifact: Make) -> None:
    artifact = make_artifact()
    assert keep_health(artifact, [], "none") == Manifest.read(artifact)
    assert Manifest.read(artifact).health is None
