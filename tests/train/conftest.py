"""Made data and a small model for training tests."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.data.sample import Sample

HEIGHT, WIDTH = 32, 64


class Frames:
    """Frames in memory, each a few coloured stripes at their own depth; ``on_read`` is called before each read."""

    description = "made frames"
    tasks = ("semseg", "depth", "normals")
    specs = (TaskSpec("semseg", channels=3), TaskSpec("depth"), TaskSpec("normals"))

    def __init__(self, count: int, on_read: Callable[[], None] = lambda: None) -> None:
        self.count, self.on_read = count, on_read

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.on_read()
        rng = np.random.default_rng(index)
        stripe_W = np.repeat(rng.integers(0, 3, WIDTH // 16), 16)
        label_HW = np.tile(stripe_W.astype(np.uint8), (HEIGHT, 1))
        normal_33 = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]], np.float32)
        image = (label_HW[..., None] * 80 + rng.integers(0, 40, (HEIGHT, WIDTH, 3))).astype(np.uint8)
        truth = {
            "semseg": label_HW,
            "depth": (1 + label_HW).astype(np.float32),
            "normals": normal_33[label_HW],
        }
        return Sample(str(index), image, truth)


@pytest.fixture(scope="session")
def frames() -> type[Frames]:
    """Return the class of made frames."""
    return Frames


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    """Return a function that makes a small model's specification; keywords are the recipe's."""

    def make(network: str = "hps", **recipe: object) -> ModelSpec:
        tasks = (TaskSpec("semseg", channels=3), TaskSpec("depth"), TaskSpec("normals"))
        recipe = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3, **recipe}
        return ModelSpec("tiny", network, tasks, InputSpec(HEIGHT, WIDTH), train=TrainSpec(**recipe))

    return make


@pytest.fixture
def make_run(tmp_path: Path, make_spec: Callable[..., ModelSpec]) -> Callable[..., Any]:
    """Return a function that describes a run into tmp_path / name; keywords are the run's or the recipe's."""
    from emadeploy.train.run import Run

    def make(name: str = "run", network: str = "hps", **options: Any) -> Run:
        fields = {field.name for field in dataclasses.fields(TrainSpec)}
        recipe = {key: options.pop(key) for key in list(options) if key in fields}
        return Run(make_spec(network, **recipe), tmp_path / name, "made", "made", **options)

    return make


@pytest.fixture
def stop_after() -> Callable[..., Callable[[], None]]:
    """Return a function that makes an ``on_read`` for frames: after so many reads it calls ``act``, or raises it."""

    def make(reads: int, act: Any) -> Callable[[], None]:
        count = 0

        def on_read() -> None:
            nonlocal count
            count += 1
            if count > reads:
                if isinstance(act, type):
                    raise act
                act()

        return on_read

    return make


@pytest.fixture
def digest() -> Callable[..., str]:
    """Return a function that identifies the weights of a run's checkpoint."""
    from emadeploy import nets

    return lambda run, which="last": nets.read_checkpoint(run.output / which).digest
