"""Rooms that are rendered while something else is done: what they say at once, what they wait for, what they leave."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emadeploy.cli.exporting import ahead as ahead_module
from emadeploy.cli.exporting.ahead import Ahead, open_now
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.source import ROOM_SPECS, open_data

ROOMS = "rooms:seed=7,count=3,size=64x96"


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that holds the number of cores that this machine claims to have."""
    count = [2]
    monkeypatch.setattr(ahead_module, "usable_cores", lambda: count[0])
    return count


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return what renders in the place of `open_data`: it goes on where ``go`` is set, and counts in ``rendered``."""
    state = SimpleNamespace(go=threading.Event(), started=threading.Event(), rendered=0, error=None)

    def render(text: str, *, split: str, workers: int, progress: Callable[[int, int], None]) -> Any:
        assert (text, split, workers) == (ROOMS, "val", 2)
        state.started.set()
        assert state.go.wait(30)
        if state.error:
            raise state.error
        for _ in range(3):
            state.rendered += 1
            progress(state.rendered, 3)
        return ["first", "second", "third"]

    monkeypatch.setattr(ahead_module, "open_data", render)
    return state


def test_real_rooms_are_those_that_are_rendered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "ahead"))
    with Ahead() as ahead:
        found = ahead.open(ROOMS)
        samples = [found[index] for index in range(len(found))]
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "now"))
    wanted = open_data(ROOMS)
    assert (found.description, found.tasks, found.specs) == (wanted.description, wanted.tasks, wanted.specs)
    assert len(samples) == len(wanted) == 3
    for sample, same in zip(samples, wanted, strict=True):
        assert (sample.image == same.image).all()
        assert {name: truth.tobytes() for name, truth in sample.truth.items()} == {
            name: truth.tobytes() for name, truth in same.truth.items()
        }


def test_what_rooms_are_is_known_before_any_is_rendered(rendering: SimpleNamespace) -> None:
    with Ahead() as ahead:
        found = ahead.open(ROOMS)
        assert rendering.started.wait(30)
        assert (found.description, found.specs) == (f"{ROOMS} val", ROOM_SPECS)
        assert found.tasks == ("semseg", "depth", "normals", "edge")
        assert rendering.rendered == 0
        rendering.go.set()
        assert (len(found), found[1]) == (3, "second")


def test_what_is_not_rendered_at_the_end_is_left(rendering: SimpleNamespace) -> None:
    with Ahead() as ahead:
        ahead.open(ROOMS)
        assert rendering.started.wait(30)
        threading.Timer(0.2, rendering.go.set).start()  # while the block ends
    assert rendering.rendered == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rooms")]


def test_what_rendering_raises_at_once_is_raised_before_anything_else_is_done(
    rendering: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering.error = DataError("rooms cannot be cached: the disk is full")
    rendering.go.set()
    monkeypatch.setattr(ahead_module, "EARLY_S", 30)
    with Ahead() as ahead, pytest.raises(DataError, match="the disk is full"):
        ahead.open(ROOMS)


def test_what_rendering_raises_later_is_raised_where_a_room_is_looked_at(rendering: SimpleNamespace) -> None:
    rendering.error = DataError("rooms cannot be cached: the disk is full")
    with Ahead() as ahead:
        found = ahead.open(ROOMS)
        rendering.go.set()
        for _ in range(2):
            with pytest.raises(DataError, match="the disk is full"):
                found[0]


def test_other_data_and_rooms_on_one_core_are_opened_at_once(
    cores: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ahead_module, "open_now", lambda text: seen.append(text) or "opened")
    with Ahead() as ahead:
        assert ahead.open(f"nyuv2:{tmp_path}") == "opened"
        cores[0] = 1
        assert ahead.open(ROOMS) == "opened"
    assert seen == [f"nyuv2:{tmp_path}", ROOMS]


def test_data_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with Ahead() as ahead:
        with pytest.raises(SpecError, match="count"):
            ahead.open("rooms:count=0")
        with pytest.raises(DataError):
            ahead.open(f"nyuv2:{tmp_path}")
    with pytest.raises(DataError):
        open_now(f"nyuv2:{tmp_path}")
