"""Distances from a teacher's answers, and the loss that they make."""

import math
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from emadeploy import nets
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.train.distil import Teacher, distance

CHANNELS = {"semseg": 4, "human_parts": 3, "saliency": 2, "depth": 1, "normals": 3, "edge": 1}


def task_of(kind: str) -> TaskSpec:
    return TaskSpec(kind, CHANNELS[kind])


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_distance_from_the_same_and_some_from_others(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(2, CHANNELS[kind], 3, 4, generator=generator)
    other = torch.randn(2, CHANNELS[kind], 3, 4, generator=generator).requires_grad_()
    assert distance(wanted, wanted, task_of(kind)).item() == pytest.approx(0, abs=1e-6)
    found = distance(other, wanted, task_of(kind))
    assert found.item() > 0.1
    found.backward()
    # A step against the gradient comes nearer.
    assert distance(other.detach() - 0.1 * other.grad, wanted, task_of(kind)) < found.detach()


def test_distances_by_hand() -> None:
    half, wide = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), math.log(3))
    assert distance(half, half + 0.7, task_of("depth")).item() == pytest.approx(0.7)
    # Probabilities 3/4 and 1/4 wanted, 1/2 and 1/2 found.
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert distance(half, wide, task_of("edge")).item() == pytest.approx(divergence)
    both = torch.cat([wide, half], 1)
    assert distance(torch.zeros_like(both), both, task_of("saliency")).item() == pytest.approx(divergence)
    east, north = torch.tensor([2.0, 0, 0]).reshape(1, 3, 1, 1), torch.tensor([0, 5.0, 0]).reshape(1, 3, 1, 1)
    assert distance(east, north, task_of("normals")).item() == pytest.approx(1)


def test_a_teacher_weighs_tasks_and_is_not_trained(make_spec: Callable[..., Any]) -> None:
    spec = make_spec()
    torch.manual_seed(0)
    network = nets.build(spec)
    teacher = Teacher(network, 0.5)
    image = torch.rand(1, 3, *spec.input.size)
    answers = {name: maps.clone().requires_grad_() for name, maps in network.deploy(image).items()}
    assert teacher.loss(answers, image).item() == pytest.approx(0, abs=1e-5)
    moved = {**answers, "depth": answers["depth"] + 0.4}
    assert teacher.loss(moved, image).item() == pytest.approx(0.5 * spec.task("depth").weight * 0.4, rel=1e-3)
    teacher.loss(moved, image).backward()
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
