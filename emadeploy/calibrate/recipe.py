"""The recipe: how a target is quantised. People write it in yaml, one per target, in ``calibration/recipes/``."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emadeploy import zoo
from emadeploy.contract.errors import BackendMissing, SpecError, one_line
from emadeploy.contract.manifest import TARGETS, parse_target
from emadeploy.contract.plain import as_mapping, is_a, known_fields, make, one_of, require, spec_path, to_plain
from emadeploy.contract.tasks import KINDS
from emadeploy.runtime.machine import cpu_flags, sums_bytes

METHODS = ("minmax", "percentile", "entropy", "mse")
ACTIVATIONS = ("symmetric", "asymmetric")
WEIGHTS = ("per_channel", "per_tensor")
#: Types of activations and weights. 'reduced': weights of 7 bits, where sums of two products would overflow 16 bits.
REDUCED = "U8S8-reduced"
TYPES = ("U8S8", REDUCED, "S8S8")
AUTO = "auto"

_ARM = ("aarch64", "arm64")
_BF16 = {"avx512_bf16", "amx_bf16"}


#: Recipe -> what it may say. OpenVINO's types and ranges are NNCF's; its products, and all of TensorRT, need symmetry.
_ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "onnxruntime-int8": {
        "method": METHODS,
        "activations": ACTIVATIONS,
        "types": (AUTO, *TYPES),
        "rest": ("fp32",),
    },
    "openvino-int8": {
        "method": ("minmax", "percentile"),
        "activations": ("symmetric",),
        "types": (AUTO, "U8S8", "U8S8-reduced"),
        "rest": (AUTO, "fp32", "bf16"),
    },
    "trt-int8": {
        "method": METHODS,
        "activations": ("symmetric",),
        "types": ("S8S8",),
        "rest": ("fp32", "fp16"),
    },
}
_RECIPE_OF = {
    target: target.replace("trt-rtx", "trt") for target, (_, precision) in TARGETS.items() if "int8" in precision
}


@dataclass(frozen=True)
class Recipe:
    """How ``target`` is quantised.

    - ``method``: how the range of a tensor is chosen, one of METHODS; ``percentile``: of its values, for that method.
    - ``frames``: how many are taken where nobody says, ``minimum``: fewer are refused.
    - ``activations``: ACTIVATIONS; ``weights``: WEIGHTS; ``types``: one of TYPES, or 'auto': what suits this machine.
    - ``rest``: the precision of layers that a budget keeps out of int8: 'fp32', 'bf16', 'fp16', or 'auto': bf16 where
      this machine has it, else fp32.
    - ``budgets``: by task, how much worse it may get: depth in percent of its relative error, normals in degrees,
      the others in points.
    - ``evaluations``: how many a search for what must stay in ``rest`` may take.
    """

    target: str
    method: str
    frames: int
    minimum: int
    activations: str
    weights: str
    rest: str
    evaluations: int
    percentile: float | None = None
    types: str = AUTO
    budgets: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("target", self.target, tuple(_ALLOWED))
        for name, known in _ALLOWED[self.target].items():
            one_of(f"for {self.target}, {name}", getattr(self, name), known)
        one_of("weights", self.weights, WEIGHTS)
        for name in ("frames", "minimum", "evaluations"):
            require(getattr(self, name) > 0, f"{name} {getattr(self, name)} is not positive")
        require(self.minimum <= self.frames, f"minimum {self.minimum} is more than the {self.frames} frames")
        if self.method == "percentile":
            given = self.percentile is not None and 50 < self.percentile <= 100
            require(given, f"percentile {self.percentile!r} is not over 50 and up to 100, e.g. 99.99")
        else:
            require(self.percentile is None, f"percentile is for the method 'percentile', not {self.method!r}")
        self._check_budgets()

    def _check_budgets(self) -> None:
        with spec_path("budgets"):
            for task, drop in as_mapping("budgets", self.budgets).items():
                one_of("task", task, tuple(KINDS))
                fits = is_a(float, drop) and 0 <= drop < float("inf")
                require(fits, f"{task} {drop!r} is not a number from 0 up")

    @property
    def symmetric(self) -> bool:
        """Whether zero point 0 is asked for activations."""
        return self.activations == "symmetric"

    def digest(self) -> str:
        """Return the SHA-256 of all that the recipe says, in hex; comments and order do not count."""
        text = json.dumps(to_plain(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def resolved(self, flags: Collection[str] | None = None, architecture: str | None = None) -> Recipe:
        """Return the recipe with 'auto' replaced by what suits the CPU (default: this one)."""
        flags = cpu_flags() if flags is None else flags
        types, rest = self.types, self.rest
        if types == AUTO:
            types = _suited(flags, architecture or platform.machine())
            # OpenVINO's Arm kernels choose signs by themselves; what counts there is that weights have all their bits.
            types = "U8S8" if (self.target, types) == ("openvino-int8", "S8S8") else types
        if rest == AUTO:
            rest = "bf16" if _BF16 & set(flags) else "fp32"
        return replace(self, types=types, rest=rest)


def load_recipe(target: str, path: Path | None = None) -> Recipe:
    """Return the recipe of an int8 target (or alias), the shipped one or that in the yaml file ``path``.

    Raises SpecError with the path of what is wrong, BackendMissing without pyyaml.
    """
    target = parse_target(target)
    if target not in _RECIPE_OF:
        raise SpecError(f"target {target!r} is not calibrated; those that are: {', '.join(_RECIPE_OF)}")
    path = path or zoo.assets("calibration") / "recipes" / f"{_RECIPE_OF[target]}.yml"
    data = _read_yaml(path)
    with spec_path(str(path)):
        if not isinstance(data, dict):
            raise SpecError("not a mapping of fields")
        if "target" in data:
            raise SpecError("field 'target' is not allowed: the export says for which target the recipe is")
        values = known_fields(Recipe, {str(key): value for key, value in data.items()})
        return make(Recipe, {"target": _RECIPE_OF[target], **values})


def _suited(flags: Collection[str], architecture: str) -> str:
    if architecture in _ARM:
        return "S8S8"
    return "U8S8" if sums_bytes(flags, architecture) else REDUCED


def _read_yaml(path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise BackendMissing.of("reading a recipe", "pyyaml", "export") from None
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} cannot be read: {one_line(error)}") from None
