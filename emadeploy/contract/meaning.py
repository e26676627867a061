"""Whether numbers of one task mean the same in two places: a model and its data, or two models."""

from __future__ import annotations

from collections.abc import Iterable

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec


def difference(mine: TaskSpec, theirs: TaskSpec) -> tuple[str, str, str] | None:
    """Return what differs in the meaning of the maps of two tasks of one kind, or None where nothing does.

    (what, of mine, of theirs): ('the unit', 'metre', 'inverse_depth'), ('the number of classes', '19', '13'),
    ('class 3', 'chair', 'sofa'); the first of them that differs. Colours and weights mean nothing; classes without
    names can only be counted.
    """
    if mine.channels != theirs.channels:
        return "the number of classes", str(mine.channels), str(theirs.channels)
    for what in ("unit", "direction", "frame"):
        found, others = getattr(mine, what), getattr(theirs, what)
        if found != others:
            return f"the {what}", str(found), str(others)
    named = zip(mine.class_names, theirs.class_names, strict=True) if mine.class_names and theirs.class_names else ()
    for index, (found, others) in enumerate(named):
        if found != others:
            return f"class {index}", found, others
    return None


def check_truths(truths: Iterable[TaskSpec], tasks: Iterable[TaskSpec], described: str) -> None:
    """Raise DataError where what ``described`` data has as ``truths`` means something else than in a model's ``tasks``.

    Tasks that one of the two lacks are nobody's concern here.
    """
    wanted = {task.name: task for task in tasks}
    for truth in truths:
        differs = difference(truth, wanted[truth.name]) if truth.name in wanted else None
        if differs is not None:
            what, of_data, of_model = differs
            raise DataError(
                f"{described} and the model differ in {truth.name}: {what} is {of_data} in the data and "
                f"{of_model} in the model; choose data and a model made for each other, or say in model.yml what the "
                "data has"
            )
