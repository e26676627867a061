"""Bounded queues: what waits, what is dropped, and how both sides learn that it is over."""

import threading
from collections.abc import Callable
from queue import Queue

import pytest

from emadeploy.runtime.line import Ended, Line

PATIENCE = 30.0


def in_thread(work: Callable[[], object]) -> "Queue[object]":
    """What ``work`` returned or raised, when it has."""
    done: Queue[object] = Queue()

    def run() -> None:
        try:
            done.put(work())
        except BaseException as error:
            done.put(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def test_items_keep_their_order() -> None:
    line: Line[int] = Line(3)
    assert [line.put(i) for i in range(3)] == [None] * 3
    assert [line.take() for _ in range(3)] == [0, 1, 2]


def test_a_full_line_makes_its_writer_wait() -> None:
    line: Line[int] = Line(1)
    line.put(1)
    done = in_thread(lambda: line.put(2))
    assert len(line) == 1
    assert done.empty()
    assert line.take() == 1
    assert done.get(timeout=PATIENCE) is None
    assert line.take() == 2


def test_the_newest_takes_the_place_of_the_oldest() -> None:
    line: Line[int] = Line(2, may_drop=lambda item: True)
    assert [line.put(i) for i in range(5)] == [None, None, 0, 1, 2]
    assert [line.take(), line.take()] == [3, 4]


def test_what_must_not_be_dropped_stays() -> None:
    line: Line[int] = Line(1, may_drop=lambda item: item >= 0)
    line.put(-1)
    assert line.put(5) == 5  # the new one goes
    done = in_thread(lambda: line.put(-2))  # and one that must not go waits
    assert line.take() == -1
    assert done.get(timeout=PATIENCE) is None
    assert line.take() == -2
    line.put(7)
    assert line.put(-3) == 7
    assert line.take() == -3


def test_after_the_end_what_waits_is_still_taken() -> None:
    line: Line[int] = Line(2)
    line.put(1)
    line.end()
    assert line.take() == 1
    with pytest.raises(Ended):
        line.take()


def test_a_reader_learns_of_the_end_while_it_waits() -> None:
    for finish in (Line.end, Line.stop):
        line: Line[int] = Line(1)
        done = in_thread(line.take)
        finish(line)
        assert isinstance(done.get(timeout=PATIENCE), Ended)


def test_stopped_it_lets_go_of_everything() -> None:
    line: Line[int] = Line(1)
    line.put(1)
    done = in_thread(lambda: line.put(2))
    line.stop()
    assert isinstance(done.get(timeout=PATIENCE), Ended)
    assert len(line) == 0
    for use in (line.take, lambda: line.put(3)):
        with pytest.raises(Ended):
            use()


def test_a_line_without_room() -> None:
    with pytest.raises(ValueError, match="room 0 is not positive"):
        Line(0)
