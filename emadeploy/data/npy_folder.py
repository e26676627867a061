"""Frames and truths in numpy files, one folder per map: ``image/0.npy, 1.npy, ...``, ``label/0.npy, ...`` and so on.

Nothing on disk is trusted: whatever a file holds besides what its folder promises is a DataError with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.maps import check_size, load_npy, naming, to_image, to_map
from emadeploy.data.sample import Sample

IMAGE_FOLDER = "image"


@dataclass(frozen=True)
class NpyLayout:
    """Which folder holds the truth of which task, beside ``image/``, and what these truths are.

    ``optional`` tasks may be absent, the others must be there. ``origin`` says in an error where such a tree comes
    from.
    """

    folders: Mapping[str, str]
    tasks: tuple[TaskSpec, ...]
    optional: tuple[str, ...] = ()
    origin: str = ""

    def __str__(self) -> str:
        names = [IMAGE_FOLDER] + [name for task, name in self.folders.items() if task not in self.optional]
        return f"{{{','.join(names)}}}/0.npy, 1.npy, ..." + (f" ({self.origin})" if self.origin else "")


class NpyFolder:
    """The samples below ``root``, in the numeric order of their files; ``limit`` keeps at most the first so many.

    Raises DataError where a folder is missing, a file name is not a number, or the folders do not hold the same
    frames. With a limit, what lies past it is not looked at.
    """

    def __init__(self, root: Path, layout: NpyLayout, *, description: str, limit: int | None = None) -> None:
        self.root, self.layout, self.description = root, layout, description
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; expected {layout} in it")
        frames = _frame_numbers(root / IMAGE_FOLDER, layout)
        self.frames = frames[:limit]
        self.specs = tuple(
            task
            for task in layout.tasks
            if task.name not in layout.optional or (root / layout.folders[task.name]).is_dir()
        )
        self.tasks = tuple(task.name for task in self.specs)
        for task in self.tasks:
            self._check_frames(root / layout.folders[task], exact=limit is None)

    def _check_frames(self, folder: Path, *, exact: bool) -> None:
        here = _frame_numbers(folder, self.layout)
        image_folder = self.root / IMAGE_FOLDER
        for lacking, frames in ((folder, set(self.frames) - set(here)), (image_folder, set(here) - set(self.frames))):
            if frames and (exact or lacking is folder):
                raise DataError(
                    f"{lacking} lacks {min(frames)}.npy: {folder.name}/ has {len(here)} frames, "
                    f"{IMAGE_FOLDER}/ {len(self.frames)}; every frame needs all its maps"
                )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample. Raises DataError naming the file that is unreadable, or of an unfit shape or value."""
        name = f"{self.frames[index]}.npy"
        path = self.root / IMAGE_FOLDER / name
        stored = load_npy(path)
        with naming(path):
            image = to_image(stored)
        truth = {}
        for task in self.specs:
            path = self.root / self.layout.folders[task.name] / name
            stored = load_npy(path)
            with naming(path):
                truth[task.name] = to_map(task.name, stored, task.channels)
                check_size(truth[task.name], image)
        return Sample(str(self.frames[index]), image, truth)


def _frame_numbers(folder: Path, layout: NpyLayout) -> list[int]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected {layout}")
    # Hidden files are somebody's half-written ones.
    stems = [path.stem for path in folder.glob("*.npy") if not path.name.startswith(".")]
    for stem in stems:
        if not (stem.isascii() and stem.isdigit() and str(int(stem)) == stem):
            raise DataError(f"{folder / stem}.npy: the name is not a frame number; expected {layout}")
    if not stems:
        raise DataError(f"{folder} holds no .npy file; expected {layout}")
    return sorted(int(stem) for stem in stems)
