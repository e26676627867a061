"""The learning-rate finder: a rate that learns, and no trace."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.errors import SpecError
from emadeploy.train.find_rate import HIGHEST, LOWEST, find_rate


def test_a_rate_between_the_extremes_and_the_same_again(make_run, frames):
    run = make_run(batch_size=2)
    rate = find_rate(run, frames(4), steps=24)
    assert LOWEST < rate < HIGHEST
    assert find_rate(run, frames(4), steps=24) == rate
    assert not run.output.exists()


def test_it_is_looked_for_on_one_device(make_run, frames):
    with pytest.raises(SpecError, match=r"looked for on one device, --devices x --nodes is 2"):
        find_rate(make_run(devices=2), frames(4))
