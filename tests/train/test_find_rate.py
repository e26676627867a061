"""The learning-rate finder: a rate that learns, and no trace."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
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


def test_data_of_another_kind_is_refused(make_run, frames):
    other = frames(4)
    other.specs = (TaskSpec("semseg", channels=19),)
    with pytest.raises(DataError, match=r"the training data made frames and the model differ in semseg"):
        find_rate(make_run(), other)
