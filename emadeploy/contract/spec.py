"""Specifications: what a model is, before any weight exists. Frozen, and checked when they are made.

A spec can be written to plain data (``to_dict``) and read back (``from_dict``); errors grow a path as they rise:
``models/x/model.yml: task 'depth': unit 'feet' is unknown; known: metre, inverse_depth``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emadeploy.contract.errors import SpecError
from emadeploy.contract.plain import as_list, as_mapping, is_a, known_fields, make, one_of, require, spec_path, to_plain
from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.tasks import CLASS_SETS, KINDS, Rgb, TaskKind, spread_palette

NETWORKS = ("emanet", "m_emanet", "stl", "hps")
CTAL_FORMS = ("exact", "affinity")
CTAL_STRIDES = (4, 8, 16, 32)
#: Every extent of an image is a multiple of this: the coarsest map of the backbone is at 1/32.
STRIDE = 32


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: ``name``, static ``shape``, numpy ``dtype`` name, ``layout`` such as 'BCHW'."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str

    def __post_init__(self) -> None:
        with spec_path(f"tensor {self.name!r}"):
            require(
                bool(self.shape) and all(isinstance(n, int) and n > 0 for n in self.shape),
                f"shape {self.shape} has an extent that is not a positive int",
            )
            one_of("dtype", self.dtype, ("float32", "float16", "uint8", "uint16", "int64"))
            require(len(self.layout) == len(self.shape), f"layout {self.layout!r} does not fit the shape {self.shape}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Read what :func:`to_plain` wrote; raises SpecError."""
        values = known_fields(cls, data)
        values["shape"] = tuple(as_list("shape", values.get("shape", ())))
        return make(cls, values)


def frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one frame of a batch of tensors of ``shape``: of (1, C, H, W), without the first axis."""
    return shape[1:] if len(shape) == 4 else shape


@dataclass(frozen=True)
class TaskSpec:
    """One task of a model. Its name is its kind: a model has at most one task of each kind.

    ``channels`` raw maps become one decoded map: see :mod:`emadeploy.contract.outputs`. ``weight`` is the task's
    weight in the training loss. ``unit``, ``direction`` and ``frame`` default to the first that the kind allows.
    """

    kind: str
    channels: int = 0
    class_names: tuple[str, ...] = ()
    palette: tuple[Rgb, ...] = ()
    unit: str | None = None
    direction: str | None = None
    frame: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        one_of("task kind", self.kind, tuple(KINDS))
        with spec_path(f"task {self.kind!r}"):
            self._fill_defaults(KINDS[self.kind])
            self._check(KINDS[self.kind])

    def _fill_defaults(self, kind: TaskKind) -> None:
        fill = object.__setattr__
        if not self.channels:
            fill(self, "channels", len(self.class_names) or kind.channels or 0)
        if self.class_names and not self.palette:
            fill(self, "palette", spread_palette(len(self.class_names)))
        for attribute, allowed in (("unit", kind.units), ("direction", kind.directions), ("frame", kind.frames)):
            if getattr(self, attribute) is None and allowed:
                fill(self, attribute, allowed[0])

    def _check(self, kind: TaskKind) -> None:
        if kind.channels is None:
            require(self.channels >= 2, f"needs at least 2 classes, got {self.channels}; name them with 'classes'")
            require(self.channels < 255, f"{self.channels} classes do not fit uint8 beside the invalid value 255")
            if self.class_names:
                require(
                    len(self.class_names) == self.channels,
                    f"{len(self.class_names)} class names for {self.channels} channels",
                )
        else:
            require(self.channels == kind.channels, f"has {kind.channels} channels, got {self.channels}")
            require(not self.class_names, "has no classes")
        require(len(self.palette) in (0, self.channels), f"{len(self.palette)} colours for {self.channels} classes")
        for colour in self.palette:
            fits = len(colour) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in colour)
            require(fits, f"colour {colour} is not three ints from 0 to 255")
        for name, allowed in (("unit", kind.units), ("direction", kind.directions), ("frame", kind.frames)):
            value = getattr(self, name)
            require(bool(allowed) or value is None, f"has no {name}, got {value!r}")
            if allowed:
                one_of(name, value, allowed)
        if self.kind == "depth":
            require(
                (self.unit == "metre") == (self.direction == "farther_is_larger"),
                f"unit {self.unit!r} contradicts direction {self.direction!r}",
            )
        require(self.weight > 0, f"weight {self.weight} is not positive")

    @property
    def name(self) -> str:
        """The task's name in every dictionary of maps: its kind."""
        return self.kind

    @property
    def invalid(self) -> float | None:
        """The value of a decoded map where there is no answer; ``None`` where every pixel has one."""
        return KINDS[self.kind].invalid

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskSpec:
        """Read a task from plain data; ``classes`` may name a set of CLASS_SETS or list the names. Raises SpecError."""
        values = dict(data)
        with spec_path(f"task {values.get('kind')!r}"):
            classes = values.pop("classes", None)
            if isinstance(classes, str):
                one_of("class set", classes, tuple(CLASS_SETS))
                values["class_names"], values["palette"] = CLASS_SETS[classes]
            elif classes is not None:
                values["class_names"] = classes
            values = known_fields(cls, values)
            values["class_names"] = tuple(str(name) for name in as_list("classes", values.get("class_names", ())))
            palette = as_list("palette", values.get("palette", ()))
            values["palette"] = tuple(tuple(as_list("a colour", colour)) for colour in palette)
        return make(cls, values)


@dataclass(frozen=True)
class InputSpec:
    """The network's input: RGB, ``height`` x ``width`` pixels, values in [0, 1], then ``(x - mean) / std``."""

    height: int
    width: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        with spec_path("input"):
            for name in ("height", "width"):
                extent = getattr(self, name)
                require(isinstance(extent, int) and extent > 0, f"{name} {extent!r} is not a positive int")
                require(extent % STRIDE == 0, f"{name} {extent} is not divisible by {STRIDE}")
            for name in ("mean", "std"):
                values = getattr(self, name)
                require(
                    len(values) == 3 and all(is_a(float, v) and math.isfinite(v) for v in values),
                    f"{name} {values} is not three numbers, for R G B",
                )
            require(all(s > 0 for s in self.std), f"std {self.std} is not positive")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read from plain data; ``size: [height, width]`` may stand for the two. Raises SpecError."""
        values = dict(data)
        with spec_path("input"):
            if "size" in values:
                size = values.pop("size")
                require(isinstance(size, (list, tuple)) and len(size) == 2, f"size {size!r} is not [height, width]")
                values["height"], values["width"] = size
            values = known_fields(cls, values)
            for key in ("mean", "std"):
                if key in values:
                    values[key] = tuple(as_list(key, values[key]))
        return make(cls, values)


@dataclass(frozen=True)
class CtalSpec:
    """Cross-Task Affinity Learning: ``form`` as computed ('exact' linear, or 'affinity' as published), ``gamma``.

    ``stride``: pixels of the image per pixel of the map that it works on, 4 as published at first, 32 in the later
    version's networks over transformers.
    """

    form: str = "exact"
    gamma: float = 0.05
    stride: int = 4

    def __post_init__(self) -> None:
        with spec_path("ctal"):
            one_of("form", self.form, CTAL_FORMS)
            require(0 <= self.gamma <= 1, f"gamma {self.gamma} is not between 0 and 1")
            require(self.stride in CTAL_STRIDES, f"stride {self.stride!r} is unknown; known: 4, 8, 16, 32")


@dataclass(frozen=True)
class ModelSpec:
    """A model: network, backbone, tasks in order, input, CTAL and training recipe. ``name`` is its folder's name."""

    name: str
    network: str
    tasks: tuple[TaskSpec, ...]
    input: InputSpec
    backbone: str = "hrnet_w18_small_v2"
    ctal: CtalSpec = field(default_factory=CtalSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    data: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        require(bool(self.name), "a model has no name")
        with spec_path(f"model {self.name!r}"):
            one_of("network", self.network, NETWORKS)
            require(
                self.backbone == "hrnet_w18_small_v2" or self.backbone.startswith("timm:"),
                f"backbone {self.backbone!r} is unknown; known: hrnet_w18_small_v2, timm:<name>",
            )
            require(bool(self.tasks), "has no tasks")
            kinds = [task.kind for task in self.tasks]
            require(len(set(kinds)) == len(kinds), f"has a task twice: {', '.join(kinds)}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks' names in the order of the network."""
        return tuple(task.name for task in self.tasks)

    def task(self, name: str) -> TaskSpec:
        """Return the task ``name``; raises SpecError where the model lacks it."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise SpecError(f"model {self.name!r} has no task {name!r}; it has {', '.join(self.task_names)}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data (json and yaml can hold it) that :meth:`from_dict` reads back to an equal spec."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Read a spec from plain data. Raises SpecError with the path of what is wrong."""
        require(isinstance(data, Mapping), f"a model spec is a mapping, got {type(data).__name__}")
        values = dict(data)
        with spec_path(f"model {values.get('name')!r}"):
            values = known_fields(cls, values)
            tasks = as_list("tasks", values.get("tasks", ()))
            values["tasks"] = tuple(TaskSpec.from_dict(as_mapping("task", task)) for task in tasks)
            values["input"] = InputSpec.from_dict(as_mapping("input", values.get("input")))
            for key, kind in (("ctal", CtalSpec), ("train", TrainSpec)):
                if key in values:
                    with spec_path(key):
                        values[key] = make(kind, known_fields(kind, as_mapping(key, values[key])))
        return make(cls, values)
