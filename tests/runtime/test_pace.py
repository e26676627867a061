"""When the next frame is picked, on a clock that a test turns."""

import threading

import pytest

from emadeploy.runtime.line import Ended
from emadeploy.runtime.pace import Eager, Pace

PATIENCE = 30.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def learned(clock: Clock, preprocess: float, inference: float, decode: float) -> Pace:
    pace = Pace(clock)
    for stage, seconds in {"preprocess": preprocess, "inference": inference, "decode": decode}.items():
        pace.learn(stage, seconds)
    return pace


def test_the_first_frame_is_picked_at_once(clock: Clock) -> None:
    Pace(clock).wait_to_pick()


def test_where_inference_takes_longest_the_next_is_ready_just_in_time(clock: Clock) -> None:
    pace = learned(clock, 0.01, 0.1, 0.005)
    pace.wait_to_pick()
    pace.enter()
    # Picked a preprocessing and a tenth of an inference before the engine is free.
    assert pace.due() == pytest.approx(100 + 0.1 - 0.01 - 0.01)


def test_where_decoding_takes_longest_it_is_decoding_that_is_waited_for(clock: Clock) -> None:
    pace = learned(clock, 0.01, 0.1, 0.3)
    pace.wait_to_pick()
    pace.enter()
    clock.now += 0.1
    pace.collect()  # being decoded until 100.4
    clock.now = 100.29
    pace.wait_to_pick()
    clock.now += 0.01
    pace.enter()
    # In the engine until 100.4, decoded until 100.7; the next one's inference may end then.
    assert pace.due() == pytest.approx(100.7 - 0.1 - 0.01 - 0.01)


def test_an_idle_engine_waits_for_a_decoder_that_is_busy_for_longer(clock: Clock) -> None:
    pace = learned(clock, 0.01, 0.1, 0.3)
    pace.wait_to_pick()
    pace.enter()
    pace.collect()  # being decoded until 100.3
    assert pace.due() == pytest.approx(100.3 - 0.1 - 0.01 - 0.01)


def picked_by_another(pace: Pace) -> threading.Event:
    """Return what is set once another thread may pick."""
    picked = threading.Event()
    threading.Thread(target=lambda: (pace.wait_to_pick(), picked.set()), daemon=True).start()
    return picked


def test_never_more_than_one_waits_for_the_engine(clock: Clock) -> None:
    pace = Pace(clock)  # that has learned nothing: all is due at once
    for _ in range(2):
        pace.wait_to_pick()
        pace.enter()
    picked = picked_by_another(pace)
    assert not picked.is_set()
    pace.collect()
    assert picked.wait(PATIENCE)


def test_a_frame_that_is_not_due_is_picked_when_the_engine_is_free_already(clock: Clock) -> None:
    pace = learned(clock, 0.0, 1000.0, 0.0)
    pace.wait_to_pick()
    pace.enter()
    picked = picked_by_another(pace)
    assert not picked.is_set()
    pace.collect()
    assert picked.wait(PATIENCE)


def test_means_follow_what_is_measured(clock: Clock) -> None:
    pace = learned(clock, 0.0, 1.0, 0.0)
    for _ in range(50):
        pace.learn("inference", 2.0)
    pace.wait_to_pick()
    pace.enter()
    assert pace.due() == pytest.approx(100 + 2 - 0.2, abs=0.01)


@pytest.mark.parametrize("kind", [Pace, Eager])
def test_stopped_it_lets_go(kind: type[Pace]) -> None:
    pace = kind()
    for _ in range(2):
        pace.wait_to_pick()
    if kind is Eager:
        for _ in range(100):
            pace.wait_to_pick()
    pace.stop()
    with pytest.raises(Ended):
        pace.wait_to_pick()
