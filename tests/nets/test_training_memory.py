"""Training with the exact form keeps, and makes, nothing as large as an affinity matrix."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emadeploy import nets
from emadeploy.nets.ctal import CrossTaskAttention

TASKS = ("semseg", "depth", "normals")


class Record(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return made


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Collect what autograd keeps for the backward pass: bytes by storage, each counted once."""
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def train_step(form: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest tensor (elements) and the bytes kept for backward, parameters apart."""
    attention = CrossTaskAttention(TASKS, size, gamma=0.05, form=form, fusion_name="fusion")
    feats = {task: torch.randn(1, 128, *size, requires_grad=True) for task in TASKS}
    parameters = {p.untyped_storage().data_ptr() for p in attention.parameters()}
    # saved_tensors_hooks sees tensors kept by C++ operations and by save_for_backward alike.
    with Record() as record, saved_bytes() as kept:
        sum(out.square().sum() for out in attention(feats).values()).backward()
    return record.largest, sum(bytes_ for storage, bytes_ in kept.items() if storage not in parameters)


def test_exact_form_makes_nothing_of_the_size_of_an_affinity():
    size = (64, 80)
    P = size[0] * size[1]
    largest, kept = train_step("exact", size)
    assert largest < P * P / 8
    assert kept < 4 * P * P / 2  # in all: half of one affinity in float32, of which the published form keeps several


def test_affinity_form_breaks_that_bound():
    size = (16, 24)
    P = size[0] * size[1]
    largest, kept = train_step("affinity", size)
    assert largest >= P * P * len(TASKS)
    assert kept >= 4 * P * P * len(TASKS)


def test_what_exact_keeps_grows_with_the_pixels():
    small, medium, large = (train_step("exact", (rows, 24))[1] for rows in (8, 16, 32))
    # Linear: the second doubling adds twice what the first did. Quadratic would add four times as much.
    assert large - medium == pytest.approx(2 * (medium - small), rel=0.02)


def test_affinity_form_grows_with_the_square():
    small, medium, large = (train_step("affinity", (rows, 24))[1] for rows in (4, 8, 16))
    assert large - medium > 2.5 * (medium - small)


def test_whole_network_trains_without_an_affinity(make_spec):
    size = (128, 160)  # P = 1280: an affinity would hold more elements than any feature map of one image
    P = size[0] * size[1] // 16
    model = nets.build(make_spec(size=size)).train()
    with Record() as record:
        sum(map_BCHW.abs().mean() for map_BCHW in model(torch.rand(1, 3, *size)).values()).backward()
    assert record.largest < P * P
