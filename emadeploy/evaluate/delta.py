"""The multi-task gain: how much better, in percent, one network is than another, over all its tasks.

``delta_m = 100/T * sum_t (-1)^{l_t} (M_t - S_t) / S_t``, with ``l_t = 1`` where lower is better: Maninis et al.,
Attentive Single-Tasking of Multiple Tasks, CVPR 2019. Where both sides have edges judged by odsF, that stands for them.
"""

from __future__ import annotations

import math

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.evaluate.metrics import METRICS, ON_REQUEST, Metric, TaskMetrics

OVER = ("primary", "mean")


def delta_m(metrics: TaskMetrics, baseline: TaskMetrics, over: str = "primary") -> float:
    """Return the gain of ``metrics`` over ``baseline``, percent, positive where better; both must hold the same tasks.

    ``over`` says what stands for a task: its 'primary' metric (the first of METRICS), or the 'mean' of the gains of
    its metrics (a mean of the metrics themselves would add degrees to percents). Raises as :func:`task_gains` does.
    """
    gains = task_gains(metrics, baseline, over)
    return sum(gains.values()) / len(gains)


def task_gains(metrics: TaskMetrics, baseline: TaskMetrics, over: str = "primary") -> dict[str, float]:
    """Return the gain of each task, percent, positive where better.

    Raises DataError where a task or metric is on one side alone, unknown, or has a baseline of 0; SpecError for an
    unknown ``over``.
    """
    if over not in OVER:
        raise SpecError(f"over {over!r} is unknown; known: {', '.join(OVER)}")
    for mine, others, whose in ((metrics, baseline, "the baseline"), (baseline, metrics, "the evaluation")):
        missing = [task for task in mine if task not in others]
        if missing:
            raise DataError(
                f"{whose} has no task {', '.join(missing)}: the evaluation has {', '.join(metrics) or 'none'}, the "
                f"baseline {', '.join(baseline) or 'none'}; the gain needs the same tasks on both sides"
            )
    if not metrics:
        raise DataError("there is no task to compare")
    return {task: _task_gain(task, metrics, baseline, over) for task in metrics}


def _task_gain(task: str, metrics: TaskMetrics, baseline: TaskMetrics, over: str) -> float:
    if task not in METRICS:
        raise DataError(f"task {task!r} is unknown; known: {', '.join(METRICS)}")
    requested = tuple(m for m in ON_REQUEST.get(task, ()) if m.name in metrics[task] and m.name in baseline[task])
    every = METRICS[task][:1] if over == "primary" else tuple(m for m in METRICS[task] if m.in_mean)
    chosen = requested or every
    gains = [_gain(metric, _value(metrics, task, metric), _value(baseline, task, metric), task) for metric in chosen]
    return sum(gains) / len(gains)


def _gain(metric: Metric, value: float, base: float, task: str) -> float:
    if base == 0:
        raise DataError(f"{task}: the baseline's {metric.name} is 0, so there is no gain relative to it")
    change = 100 * (value - base) / base
    return change if metric.higher_is_better else -change


def _value(metrics: TaskMetrics, task: str, metric: Metric) -> float:
    value = metrics[task].get(metric.name)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{task}: {metric.name} is {value!r}; expected a finite number")
    return float(value)
