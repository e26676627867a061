"""The learning rate over a run: by the formulas of the papers, as PyTorch's own schedules have them."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.recipe import TrainSpec  # noqa: E402
from emadeploy.train.schedule import rate_factor  # noqa: E402


def of_torch(make, steps: int) -> list[float]:
    """Return the factors of a schedule of PyTorch's."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule, found = make(optimiser), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is stepped without an optimiser's step
        for _ in range(steps):
            found.append(schedule.get_last_lr()[0])
            schedule.step()
    return found


def factors(recipe: TrainSpec, steps: int) -> list[float]:
    return [rate_factor(step, recipe, steps) for step in range(steps)]


def test_cosine():
    expected = of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40), 40)
    assert factors(TrainSpec(epochs=10), 40) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_warm_restarts(factor):
    recipe = TrainSpec(epochs=75, schedule="cosine_warm_restarts", warm_restart_epochs=25, warm_restart_factor=factor)
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    expected = of_torch(lambda o: make(o, T_0=50, T_mult=factor), 150)
    assert factors(recipe, 150) == pytest.approx(expected, abs=1e-9)
    assert factors(recipe, 150)[50] == 1, "the paper's first restart is after a third of the run"


def test_warm_up_rises_by_equal_steps_and_hands_over():
    recipe = TrainSpec(epochs=10, warm_up_epochs=2.0)
    found = factors(recipe, 50)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10:] == pytest.approx(factors(TrainSpec(epochs=8), 40))


def test_a_shorter_run_shrinks_its_lengths():
    recipe = TrainSpec(epochs=100, schedule="cosine_warm_restarts", warm_restart_epochs=50, warm_restart_factor=1)
    assert [step for step in range(20) if rate_factor(step, recipe, 20) == 1] == [0, 10]


def test_a_run_may_be_all_warm_up():
    recipe = TrainSpec(epochs=3, warm_up_epochs=2.0)
    assert [rate_factor(step, recipe, 1) for step in range(2)] == [0.5, 1.0], "PyTorch asks past the last step too"
