"""``dataset.yml``: what a folder of a user's own data holds, and where.

    image: images                                 # pictures: images/NAME.png, .jpg, ...
    splits: {train: train.txt, val: val.txt}      # lists of NAMEs; or folders, each with an images/ of its own
    tasks:
      semseg: {files: labels, classes: [floor, wall, other], ignore: [255]}
      depth: {files: depth, unit: metre, scale: 0.001, invalid: [0]}
      normals: {files: normals, frame: camera_optical, direction: toward_camera}
      edge: {files: edges, positive: 255}
      saliency: {files: salient}
      human_parts: {files: parts, classes: pascal-parts-7}

Any subset of the tasks; only ``files`` is required, and ``classes`` where a task has them (a list of names, or a set
of the contract such as nyuv2-13). A truth is NAME.npy or NAME.png; one that is not there is missing for that image.

| key | of | meaning | default |
|---|---|---|---|
| ignore | labels, edge, saliency | values where nothing is known | [-1, 255]; edge, saliency: [255] |
| positive | edge, saliency | the value of an edge, of what is salient; the others are 0 | 1 |
| scale | depth | what a stored number is multiplied by to be in the unit | 1 |
| unit | depth | metre (farther is larger) or inverse_depth (nearer is larger) | metre |
| invalid | depth | stored numbers that stand for nothing: [0, .nan, 65535] | [0] |
| frame, direction | normals | as in a model.yml | camera_optical, toward_camera |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from emadeploy.contract.plain import as_list, as_mapping, is_a, one_of, require, spec_path
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.data.sample import IGNORE
from emadeploy.data.splits import SPLITS

NAME = "dataset.yml"

_LABELS = ("semseg", "human_parts")
_BINARY = ("edge", "saliency")
#: Task -> the keys it may have beside ``files``.
_KEYS = {
    **dict.fromkeys(_LABELS, ("classes", "ignore")),
    **dict.fromkeys(_BINARY, ("positive", "ignore")),
    "depth": ("unit", "scale", "invalid"),
    "normals": ("frame", "direction"),
}


@dataclass(frozen=True)
class FolderTask:
    """Where the truths of one task are, and how their numbers are read. What a task has no use for is left as it is."""

    spec: TaskSpec
    files: str
    ignore: tuple[int, ...] = ()
    positive: int = 1
    scale: float = 1.0
    invalid: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class FolderSpec:
    """A ``dataset.yml``. ``splits`` holds, by split, a list of names (ending in .txt) or a folder."""

    image: str
    splits: Mapping[str, str]
    tasks: tuple[FolderTask, ...]


def parse_folder_spec(data: Mapping[Any, Any]) -> FolderSpec:
    """Read the mapping of a ``dataset.yml``; raises SpecError naming the key that is wrong."""
    _check_keys("", data, ("image", "splits", "tasks"), required=("image", "splits", "tasks"))
    image = _folder("image", data["image"])
    splits = as_mapping("splits", data["splits"])
    _check_keys("splits", splits, SPLITS)
    require(bool(splits), f"splits is empty; expected {' and '.join(SPLITS)}")
    tasks = as_mapping("tasks", data["tasks"])
    require(bool(tasks), "tasks is empty: for pictures without truth use images:DIR")
    for name in tasks:
        one_of("tasks: task", name, tuple(KINDS))
    return FolderSpec(
        image,
        {split: _folder(f"splits.{split}", place) for split, place in splits.items()},
        # In the order of the contract: the yaml's should not matter.
        tuple(_task(name, tasks[name]) for name in KINDS if name in tasks),
    )


def _task(name: str, data: object) -> FolderTask:
    where = f"tasks.{name}"
    keys = as_mapping(where, data)
    required = ("files", "classes") if name in _LABELS else ("files",)
    _check_keys(where, keys, ("files", *_KEYS[name]), required=required)
    files = _folder(f"{where}.files", keys["files"])
    with spec_path(where):
        if name in _LABELS:
            spec = TaskSpec.from_dict({"kind": name, "classes": keys["classes"]})
            return FolderTask(spec, files, ignore=_whole("ignore", keys.get("ignore", [-1, IGNORE])))
        if name in _BINARY:
            return _binary(name, files, keys)
        if name == "depth":
            return _depth(files, keys)
        given = {key: str(keys[key]) for key in ("frame", "direction") if key in keys}
        return FolderTask(TaskSpec(name, **given), files)


def _binary(name: str, files: str, keys: Mapping[Any, Any]) -> FolderTask:
    positive = keys.get("positive", 1)
    require(is_a(int, positive) and positive > 0, f"positive {positive!r} is not a whole number above 0")
    ignore = _whole("ignore", keys.get("ignore", [] if positive == IGNORE else [IGNORE]))
    require(not {0, positive} & set(ignore), f"ignore {list(ignore)} holds 0 or {positive}, which mean something")
    return FolderTask(TaskSpec(name), files, ignore=ignore, positive=positive)


def _depth(files: str, keys: Mapping[Any, Any]) -> FolderTask:
    unit = keys.get("unit", "metre")
    one_of("unit", unit, KINDS["depth"].units)
    direction = "farther_is_larger" if unit == "metre" else "nearer_is_larger"
    scale = keys.get("scale", 1.0)
    hint = " (in YAML, write 1.0e-3 for 1e-3)" if isinstance(scale, str) else ""
    fits = is_a(float, scale) and math.isfinite(scale) and scale > 0
    require(fits, f"scale {scale!r} is not a number above 0{hint}")
    invalid = as_list("invalid", keys.get("invalid", [0.0]))
    for value in invalid:
        require(is_a(float, value), f"invalid {value!r} is not a number; nothing at all is .nan, infinity .inf")
    spec = TaskSpec("depth", unit=unit, direction=direction)
    return FolderTask(spec, files, scale=float(scale), invalid=tuple(float(value) for value in invalid))


def _check_keys(where: str, data: Mapping[Any, Any], known: tuple[str, ...], *, required: tuple[str, ...] = ()) -> None:
    prefix = f"{where}: " if where else ""
    unknown = [key for key in data if key not in known]
    require(not unknown, f"{prefix}unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    missing = [key for key in required if key not in data]
    require(not missing, f"{prefix}lacks {', '.join(missing)}")


def _folder(where: str, value: object) -> str:
    """Return a path below the data set's folder."""
    require(isinstance(value, str) and bool(value.strip()), f"{where} {value!r} is not the name of a folder or file")
    text = str(value)
    path = PurePosixPath(text)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text
    require(not leaves, f"{where} {text!r} leads out of the folder of {NAME}; expected a path inside it")
    return text


def _whole(where: str, value: object) -> tuple[int, ...]:
    values = as_list(where, value)
    wrong = [each for each in values if not is_a(int, each)]
    require(not wrong, f"{where} {wrong[0] if wrong else ''!r} is not a whole number")
    return tuple(values)
