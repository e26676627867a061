"""A folder of pictures without truth: to run on, to calibrate with."""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.spec import TaskSpec
from emadeploy.data.sample import Sample
from emadeploy.pictures import list_pictures, read_picture


class ImageFolder:
    """The pictures of a folder, in the order of :func:`list_pictures`; raises what that raises."""

    tasks: tuple[str, ...] = ()
    specs: tuple[TaskSpec, ...] = ()

    def __init__(self, directory: Path, *, limit: int | None = None) -> None:
        self.description = f"images:{directory}"
        self.paths = list_pictures(directory)[:limit]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Return one picture, named by its file; raises DataError where it cannot be read."""
        path = self.paths[index]
        return Sample(path.name, read_picture(path), {})
