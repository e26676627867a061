"""DATA, the one way to name data: on the command line, in recipes, in reports.

rooms[:seed=7,count=64,size=288x384]    made rooms, rendered into the cache on first use
nyuv2:DIR                               the preprocessed release of MTAN, or what `data convert` made of the raw one
cityscapes:DIR  cityscapes-7:DIR        the same, with 19 or 7 classes
pascal-context:DIR                      PASCAL_MT, as MTI-Net and ATRC read it
folder:DIR                              data of your own, described by DIR/dataset.yml
images:DIR                              pictures without truth
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from emadeploy.contract.cache import CHOOSE_CACHE, default_cache_dir
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import STRIDE
from emadeploy.data.cityscapes import open_cityscapes
from emadeploy.data.folder import open_folder
from emadeploy.data.images import ImageFolder
from emadeploy.data.nyuv2 import layout, open_nyuv2
from emadeploy.data.pascal_context import open_pascal_context
from emadeploy.data.rooms.cache import FOLDERS, write_rooms
from emadeploy.data.rooms.render import GENERATOR_VERSION
from emadeploy.data.sample import Dataset
from emadeploy.data.splits import SPLITS

#: Kind of data in a folder -> what opens it, given the folder and the split.
_OPENERS: dict[str, Callable[[Path, str], Dataset]] = {
    "nyuv2": open_nyuv2,
    "cityscapes": open_cityscapes,
    "cityscapes-7": partial(open_cityscapes, classes=7),
    "pascal-context": open_pascal_context,
    "folder": open_folder,
    "images": lambda directory, _: ImageFolder(directory),
}
FOLDER_KINDS = tuple(_OPENERS)
#: Rooms held out to validate on, where nothing else is said.
HELD_OUT = 64
_ROOM_NORMALS = "camera_optical"
#: What the truths of rooms are.
ROOM_SPECS = layout(normals_frame=_ROOM_NORMALS).tasks

#: Called with the number of frames rendered and the number of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RoomsData:
    """Made rooms: the first ``count`` of those that ``seed`` gives at ``height`` x ``width`` pixels."""

    seed: int = 7
    count: int = 64
    height: int = 288
    width: int = 384

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SpecError(f"seed {self.seed} is negative")
        if self.count < 1:
            raise SpecError(f"count {self.count} is not positive")
        for name, extent in (("height", self.height), ("width", self.width)):
            if extent < 1 or extent % STRIDE:
                raise SpecError(f"size {self.height}x{self.width}: {name} is not a positive multiple of {STRIDE}")

    def __str__(self) -> str:
        return f"rooms:seed={self.seed},count={self.count},size={self.height}x{self.width}"


@dataclass(frozen=True)
class FolderData:
    """Data of a kind (one of FOLDER_KINDS) in a folder."""

    kind: str
    directory: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.directory}"


def parse_data(text: str) -> RoomsData | FolderData:
    """Read DATA; ``str()`` of what comes back reads to the same again. Raises SpecError saying what is wrong in it."""
    kind, colon, rest = text.partition(":")
    if kind == "rooms":
        try:
            return _parse_rooms(rest) if colon else RoomsData()
        except SpecError as error:
            raise SpecError(f"data {text!r}: {error}") from None
    if kind not in FOLDER_KINDS:
        known = ["rooms[:seed=7,count=64,size=288x384]"] + [f"{name}:DIR" for name in FOLDER_KINDS]
        raise SpecError(f"data {text!r}: {kind!r} is unknown; known: {', '.join(known)}")
    if not rest:
        raise SpecError(f"data {text!r} names no folder; expected {kind}:DIR")
    return FolderData(kind, rest)


def open_data(
    text: str,
    *,
    split: str = "val",
    cache_dir: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Dataset:
    """Return the data named by ``text``: ``split`` is 'train' or 'val', rooms of the two never being the same.

    Rooms are rendered into ``cache_dir`` (default: `default_cache_dir`) unless they are there already, by
    ``workers`` processes (spawned: more than one needs a main module that can be imported), with a call of
    ``progress`` after each. Raises SpecError for a text that makes no sense, DataError for data that cannot be used,
    BackendMissing where the renderer is needed and not installed.
    """
    source = parse_data(text)
    if split not in SPLITS:
        raise SpecError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if isinstance(source, RoomsData):
        return _open_rooms(source, split, cache_dir or default_cache_dir(), workers, progress)
    return _OPENERS[source.kind](Path(source.directory).expanduser(), split)


def held_out(text: str) -> str:
    """Return DATA to validate on for data to train on: its 'val' split, of rooms no more than HELD_OUT."""
    source = parse_data(text)
    if isinstance(source, RoomsData):
        source = replace(source, count=min(source.count, HELD_OUT))
    return str(source)


def _parse_rooms(options: str) -> RoomsData:
    given: dict[str, str] = {}
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if key not in ("seed", "count", "size") or not equals:
            raise SpecError(f"{option!r} is not an option; known: seed=N, count=N, size=HxW")
        if key in given:
            raise SpecError(f"{key} is given twice")
        given[key] = value
    numbers: dict[str, int] = {key: _number(key, given[key]) for key in ("seed", "count") if key in given}
    if "size" in given:
        height, cross, width = given["size"].partition("x")
        if not cross:
            raise SpecError(f"size {given['size']!r} is not HEIGHTxWIDTH, e.g. 288x384")
        numbers |= {"height": _number("height", height), "width": _number("width", width)}
    return RoomsData(**numbers)


def _number(name: str, text: str) -> int:
    # int() alone would take ' 7', '1_000' and digits of other scripts.
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise SpecError(f"{name} {text!r} is not a whole number of at most nine digits")
    return int(text)


def _open_rooms(source: RoomsData, split: str, cache_dir: Path, workers: int, progress: Progress | None) -> Dataset:
    folder = cache_dir / "rooms" / f"v{GENERATOR_VERSION}-seed{source.seed}-{source.height}x{source.width}"
    try:
        # Looked up here, so that rooms rendered elsewhere can be read where no renderer is installed.
        if not _are_rendered(folder / split, source.count):
            write_rooms(
                folder,
                # A room depends on its seed and number alone: each split needs a seed of its own.
                seed=2 * source.seed + SPLITS.index(split),
                count=source.count,
                height=source.height,
                width=source.width,
                split=split,
                workers=workers,
                progress=progress,
            )
    except OSError as error:
        raise DataError(f"rooms cannot be cached in {folder}: {error}; {CHOOSE_CACHE}") from None
    description = f"{source} {split}"
    return open_nyuv2(folder, split, limit=source.count, description=description, normals_frame=_ROOM_NORMALS)


def _are_rendered(folder: Path, count: int) -> bool:
    return all((folder / name / f"{index}.npy").exists() for name in FOLDERS for index in range(count))
