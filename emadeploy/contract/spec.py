"""Specifications: what a model is, before any weight exists. Frozen, and checked when they are made.

A spec can be written to plain data (``to_dict``) and read back (``from_dict``); errors grow a path as they rise:
``models/x/model.yml: task 'depth': unit 'feet' is unknown; known: metre, inverse_depth``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from emadeploy.contract.errors import SpecError
from emadeploy.contract.tasks import CLASS_SETS, KINDS, Rgb, TaskKind, spread_palette

NETWORKS = ("emanet", "m_emanet", "stl", "hps")
CTAL_FORMS = ("exact", "affinity")
#: Every extent of an image is a multiple of this: the coarsest map of the backbone is at 1/32.
STRIDE = 32


@contextmanager
def spec_path(where: str) -> Iterator[None]:
    """Prefix every :class:`SpecError` that leaves the block with ``where``."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


def _one_of(what: str, value: object, known: Sequence[str]) -> None:
    _require(value in known, f"{what} {value!r} is unknown; known: {', '.join(known)}")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: ``name``, static ``shape``, numpy ``dtype`` name, ``layout`` such as 'BCHW'."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str

    def __post_init__(self) -> None:
        with spec_path(f"tensor {self.name!r}"):
            _require(
                bool(self.shape) and all(isinstance(n, int) and n > 0 for n in self.shape),
                f"shape {self.shape} has an extent that is not a positive int",
            )
            _one_of("dtype", self.dtype, ("float32", "float16", "uint8", "uint16", "int64"))
            _require(len(self.layout) == len(self.shape), f"layout {self.layout!r} does not fit the shape {self.shape}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Read what :func:`to_plain` wrote; raises SpecError."""
        values = _known_fields(cls, data)
        values["shape"] = tuple(values.get("shape", ()))
        return _make(cls, values)


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
        _one_of("task kind", self.kind, tuple(KINDS))
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
            _require(self.channels >= 2, f"needs at least 2 classes, got {self.channels}; name them with 'classes'")
            _require(self.channels < 255, f"{self.channels} classes do not fit uint8 beside the invalid value 255")
            if self.class_names:
                _require(
                    len(self.class_names) == self.channels,
                    f"{len(self.class_names)} class names for {self.channels} channels",
                )
        else:
            _require(self.channels == kind.channels, f"has {kind.channels} channels, got {self.channels}")
            _require(not self.class_names, "has no classes")
        _require(len(self.palette) in (0, self.channels), f"{len(self.palette)} colours for {self.channels} classes")
        for name, allowed in (("unit", kind.units), ("direction", kind.directions), ("frame", kind.frames)):
            value = getattr(self, name)
            _require(bool(allowed) or value is None, f"has no {name}, got {value!r}")
            if allowed:
                _one_of(name, value, allowed)
        if self.kind == "depth":
            _require(
                (self.unit == "metre") == (self.direction == "farther_is_larger"),
                f"unit {self.unit!r} contradicts direction {self.direction!r}",
            )
        _require(self.weight > 0, f"weight {self.weight} is not positive")

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
                _one_of("class set", classes, tuple(CLASS_SETS))
                values["class_names"], values["palette"] = CLASS_SETS[classes]
            elif classes is not None:
                values["class_names"] = classes
            values = _known_fields(cls, values)
            for key in ("class_names", "palette"):
                _require(isinstance(values.get(key, ()), (list, tuple)), f"{key} is not a list")
            values["class_names"] = tuple(str(name) for name in values.get("class_names", ()))
            values["palette"] = tuple(tuple(int(c) for c in colour) for colour in values.get("palette", ()))
        return _make(cls, values)


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
                _require(isinstance(extent, int) and extent > 0, f"{name} {extent!r} is not a positive int")
                _require(extent % STRIDE == 0, f"{name} {extent} is not divisible by {STRIDE}")
            _require(len(self.mean) == 3 and len(self.std) == 3, "mean and std have three values each, R G B")
            _require(all(s > 0 for s in self.std), f"std {self.std} is not positive")

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
                _require(isinstance(size, (list, tuple)) and len(size) == 2, f"size {size!r} is not [height, width]")
                values["height"], values["width"] = size
            values = _known_fields(cls, values)
            for key in ("mean", "std"):
                if key in values:
                    values[key] = tuple(float(v) for v in values[key])
        return _make(cls, values)


@dataclass(frozen=True)
class CtalSpec:
    """Cross-Task Affinity Learning: ``form`` as computed ('exact' linear, or 'affinity' as published), ``gamma``."""

    form: str = "exact"
    gamma: float = 0.05

    def __post_init__(self) -> None:
        with spec_path("ctal"):
            _one_of("form", self.form, CTAL_FORMS)
            _require(0 <= self.gamma <= 1, f"gamma {self.gamma} is not between 0 and 1")


@dataclass(frozen=True)
class TrainSpec:
    """The training recipe: Adam, cosine schedule, losses by :attr:`weighting` ('scalarization' | 'uncertainty')."""

    epochs: int = 200
    batch_size: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warm_restart_epochs: int = 25
    weighting: str = "scalarization"
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        with spec_path("train"):
            for name in ("epochs", "batch_size", "warm_restart_epochs"):
                value = getattr(self, name)
                _require(isinstance(value, int) and value > 0, f"{name} {value!r} is not a positive int")
            _require(self.learning_rate > 0, f"learning_rate {self.learning_rate} is not positive")
            _require(self.weight_decay >= 0, f"weight_decay {self.weight_decay} is negative")
            _one_of("schedule", self.schedule, ("cosine", "cosine_warm_restarts"))
            _one_of("weighting", self.weighting, ("scalarization", "uncertainty"))


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
        _require(bool(self.name), "a model has no name")
        with spec_path(f"model {self.name!r}"):
            _one_of("network", self.network, NETWORKS)
            _require(
                self.backbone == "hrnet_w18_small_v2" or self.backbone.startswith("timm:"),
                f"backbone {self.backbone!r} is unknown; known: hrnet_w18_small_v2, timm:<name>",
            )
            _require(bool(self.tasks), "has no tasks")
            kinds = [task.kind for task in self.tasks]
            _require(len(set(kinds)) == len(kinds), f"has a task twice: {', '.join(kinds)}")

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
        _require(isinstance(data, Mapping), f"a model spec is a mapping, got {type(data).__name__}")
        values = dict(data)
        with spec_path(f"model {values.get('name')!r}"):
            values = _known_fields(cls, values)
            tasks = values.get("tasks", ())
            _require(isinstance(tasks, (list, tuple)), f"tasks is not a list but {type(tasks).__name__}")
            values["tasks"] = tuple(TaskSpec.from_dict(_mapping("task", task)) for task in tasks)
            values["input"] = InputSpec.from_dict(_mapping("input", values.get("input")))
            for key, kind in (("ctal", CtalSpec), ("train", TrainSpec)):
                if key in values:
                    with spec_path(key):
                        values[key] = _make(kind, _known_fields(kind, _mapping(key, values[key])))
        return _make(cls, values)


_Spec = TypeVar("_Spec")


def to_plain(spec: Any) -> dict[str, Any]:
    """Return a dataclass as plain data: mappings, lists, str, int, float, bool, None."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    data: dict[str, Any] = plain(dataclasses.asdict(spec))
    return data


def _mapping(what: str, data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise SpecError(f"{what} is not a mapping but {type(data).__name__}")
    return data


def _known_fields(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    known = [f.name for f in dataclasses.fields(cls)]
    unknown = [key for key in data if key not in known]
    _require(not unknown, f"unknown field {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    return dict(data)


def _make(cls: type[_Spec], values: dict[str, Any]) -> _Spec:
    """Call the constructor; a missing or wrongly typed field is a SpecError, not a TypeError."""
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(str(error).replace("__init__() ", "").replace(f"{cls.__name__}.", "")) from None
