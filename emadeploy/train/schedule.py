"""The learning rate over a run: a function of the step alone, so that a run that continues has nothing to restore."""

from __future__ import annotations

import math

from emadeploy.contract.recipe import TrainSpec


def rate_factor(step: int, recipe: TrainSpec, steps: int) -> float:
    """Return what the recipe's learning rate is multiplied with at ``step`` of a run of ``steps`` optimiser steps.

    Lengths that the recipe gives in epochs are shares of its own epochs: a shorter run shrinks them alike.
    """
    warm_up = round(steps * recipe.warm_up_epochs / recipe.epochs)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    step, length = step - warm_up, steps - warm_up
    if recipe.schedule == "cosine_warm_restarts":
        length = max(round(steps * recipe.warm_restart_epochs / recipe.epochs), 1)
        while step >= length:
            step -= length
            length *= recipe.warm_restart_factor
    # A run that is all warm-up has no length left; it asks for one step past its end, as every run does.
    return 0.5 * (1 + math.cos(math.pi * step / max(length, 1)))
