"""Rooms on disk, in the layout of the preprocessed NYUv2 release.

DIRECTORY/rooms.json                     what was made: seed, count, size, generator version
DIRECTORY/{split}/image/{i}.npy          (H, W, 3) float32 in [0, 1], RGB
DIRECTORY/{split}/label/{i}.npy          (H, W) int16, -1 unlabelled
DIRECTORY/{split}/depth/{i}.npy          (H, W, 1) float32 metres, 0 invalid
DIRECTORY/{split}/normal/{i}.npy         (H, W, 3) float32 unit, camera optical frame, 0 invalid
DIRECTORY/{split}/edge/{i}.npy           (H, W) uint8 0/1
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import DataError
from emadeploy.data.rooms.raycast import require_embree
from emadeploy.data.rooms.render import GENERATOR_VERSION, RoomFrame, render_room

RECORD = "rooms.json"
FOLDERS = ("image", "label", "depth", "normal", "edge")


def _arrays(frame: RoomFrame) -> dict[str, np.ndarray]:
    return {
        "image": frame.image.astype(np.float32) / np.float32(255),
        "label": frame.semseg,
        "depth": frame.depth[..., None],
        "normal": frame.normals,
        "edge": frame.edge,
    }


def _replace(path: Path, write: Callable[[Any], None]) -> None:
    """Writes to a name of this process's own beside `path`, then renames: a reader never sees half a file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            write(file)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _finished(folder: Path, index: int) -> bool:
    return all((folder / name / f"{index}.npy").exists() for name in FOLDERS)


def _make(folder: Path, seed: int, height: int, width: int, index: int) -> int:
    """Renders and writes one frame; a module-level function, so that spawned processes can be handed it."""
    for name, array in _arrays(render_room(seed, index, height, width)).items():
        _replace(folder / name / f"{index}.npy", partial(np.save, arr=array))
    return index


def _claim(directory: Path, split: str, wanted: dict[str, Any], count: int) -> None:
    """Enters this split into the directory's record, or refuses a directory that holds something else."""
    path = directory / RECORD
    record: dict[str, Any] = {"schema": 1, "splits": {}}
    if path.exists():
        try:
            record = json.loads(path.read_text())
            found = record["splits"].get(split)
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise DataError(f"{path}: not a record of rooms ({broken}); choose another directory") from broken
    else:
        found = None
        if (directory / split).exists():
            raise DataError(f"{directory / split}: exists, but {path} does not; choose another directory")
    if found is not None:
        different = [
            f"{key} {found.get(key)}, wanted {value}" for key, value in wanted.items() if found.get(key) != value
        ]
        if different:
            raise DataError(f"{path}: split '{split}' was made with {'; '.join(different)}; choose another directory")
    # Frames do not depend on the count, so a directory may grow, and a smaller wish never forgets what is there.
    record["splits"][split] = {**wanted, "count": max(count, found["count"] if found else 0)}
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2) + "\n"
    _replace(path, lambda file: file.write(text.encode()))


def _rendered(make: Callable[[int], int], missing: list[int], workers: int) -> Iterator[int]:
    if workers == 1 or len(missing) < 2:
        yield from map(make, missing)
        return
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make, index) for index in missing]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def write_rooms(
    directory: str | os.PathLike[str],
    *,
    seed: int,
    count: int,
    height: int = 288,
    width: int = 384,
    split: str = "train",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes frames 0 to `count - 1` of `seed` under `directory`; frames that are there already are kept.

    `workers` above 1 renders in spawned processes; the files are the same. `progress(done, count)` is called once at
    the start, with the number of frames found, and after every frame.
    Returns the directory. Raises DataError where the directory holds rooms of another seed, size or generator version
    under this split, ValueError for a count or a number of workers below 1, BackendMissing without embreex.
    """
    if count < 1 or workers < 1:
        raise ValueError(f"count and workers must be at least 1, got count {count}, workers {workers}")
    require_embree()
    directory = Path(directory)
    wanted = {"seed": seed, "height": height, "width": width, "generator": GENERATOR_VERSION}
    _claim(directory, split, wanted, count)
    folder = directory / split
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(count) if not _finished(folder, index)]
    done = count - len(missing)
    if progress is not None:
        progress(done, count)
    for _ in _rendered(partial(_make, folder, seed, height, width), missing, workers):
        done += 1
        if progress is not None:
            progress(done, count)
    return directory
