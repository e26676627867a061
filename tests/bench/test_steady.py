"""When an engine is warm, and whether its times held still: on series made for it."""

from collections.abc import Iterator

import numpy as np
import pytest

from emadeploy.bench.steady import WarmUp, drift, unstable, warm_up


class Engine:
    """Answers with the milliseconds of a series."""

    def __init__(self, series: Iterator[float]) -> None:
        self.series, self.calls = series, 0

    def __call__(self, calls: int) -> list[float]:
        self.calls += calls
        return [next(self.series) for _ in range(calls)]


def falling(first: float, last: float, share: float) -> Iterator[float]:
    while True:
        yield first
        first = last + share * (first - last)


def test_an_engine_is_warm_when_two_windows_agree() -> None:
    engine = Engine(falling(300.0, 100.0, 0.7))
    warmed = warm_up(engine)
    assert warmed.steady
    assert warmed.calls == engine.calls > 9
    assert warmed.ms == pytest.approx(100, rel=0.1)


def test_one_that_is_warm_at_once_needs_two_windows() -> None:
    engine = Engine(falling(100.0, 100.0, 1.0))
    assert (warm_up(engine).steady, engine.calls) == (True, 6)


def test_a_fast_engine_is_warmed_up_for_as_long() -> None:
    engine = Engine(falling(1.0, 1.0, 1.0))
    assert warm_up(engine).steady
    assert engine.calls == 3 + 200 + 200


def test_one_that_never_holds_still_is_given_up_and_told() -> None:
    engine = Engine(100.0 * 1.2**call for call in range(1000))
    rising = warm_up(engine)
    assert engine.calls == 3 + 12 * 3
    assert rising.steady is False
    assert unstable([1.0], rising) == "not steady after 39 calls of warm-up"


def test_a_number_of_calls_is_that_number() -> None:
    engine = Engine(falling(100.0, 100.0, 1.0))
    assert (warm_up(engine, 4).calls, engine.calls) == (4, 4)
    none = warm_up(engine, 0)
    assert (none.calls, none.steady, none.ms, engine.calls) == (0, None, None, 4)
    assert unstable([1.0], none) is None


def test_an_engine_that_fails_is_not_warm() -> None:
    assert warm_up(lambda calls: None) is None
    assert warm_up(lambda calls: None, 3) is None
    answers = iter([[100.0] * 3, None])
    assert warm_up(lambda calls: next(answers)) is None


def test_drift_is_seen_and_single_slow_calls_are_not() -> None:
    flat = [100.0] * 50
    assert drift(flat) == 0
    spiky = list(flat)
    spiky[::7] = [900.0] * len(spiky[::7])
    assert drift(spiky) == 0
    heating = list(np.linspace(100, 130, 50))
    assert drift(heating) == pytest.approx(0.24 / 1.15, rel=0.05)
    assert drift(flat[:9]) is None
    reason = unstable(heating, None, ["heat has held the CPU back 3 times"])
    assert reason == (
        "the medians of successive fifths of its calls are 21 % apart; heat has held the CPU back 3 times"
    )
    assert unstable(flat, WarmUp(6, 1.0, True, 100.0)) is None
