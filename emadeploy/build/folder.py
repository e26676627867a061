"""Artifacts come into being in one step: assembled beside their place, moved there when complete.

Whatever happens on the way - an error, a full disk, a kill - the place holds the old artifact or the new one, complete.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emadeploy.contract.errors import ArtifactError, BuildError
from emadeploy.contract.manifest import MANIFEST_NAME, Manifest
from emadeploy.runtime.machine import is_alive


@contextmanager
def assembled(output: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``output`` when the block ends well, and disappears when it does not.

    Raises BuildError where ``output`` exists and is not an artifact, or the disk refuses.
    """
    output = output.absolute()
    check_replaceable(output)
    with _beside(output, "partial") as partial, _disk_errors(output):
        yield partial
        _sync(partial)
        _move(partial, output)


def publish(artifact: Path, output: Path) -> None:
    """Put the artifact made in the folder ``artifact`` in the place ``output``, in one step; raises BuildError."""
    with assembled(output) as folder:
        shutil.copytree(artifact, folder, dirs_exist_ok=True)


@contextmanager
def scratch(output: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``output`` for what is needed on the way to it; it disappears after the block."""
    with _beside(output.absolute(), "scratch") as folder:
        yield folder


def check_replaceable(output: Path) -> None:
    """Raise BuildError where ``output`` exists and is no artifact: nothing else is ever overwritten."""
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    try:
        Manifest.read(output)
    except ArtifactError:
        # A damaged or newer manifest is still one: the folder was an artifact.
        if not (output / MANIFEST_NAME).is_file():
            raise BuildError(f"{output} exists and is not an artifact: choose another output with -o") from None


@contextmanager
def _beside(output: Path, purpose: str) -> Iterator[Path]:
    folder = output.with_name(f".{output.name}.{purpose}-{os.getpid()}")
    with _disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _sweep(output)
    try:
        # In here: a signal that comes as soon as it is there must find it cleaned up, too.
        with _disk_errors(output):
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(f"{output} cannot be written: {error.strerror or error}; nothing was left there") from error


def _move(partial: Path, output: Path) -> None:
    """Put the folder ``partial`` in the place of ``output``, which may exist."""
    if not output.exists():
        partial.rename(output)
        return
    former = output.with_name(f".{output.name}.former-{os.getpid()}")
    output.rename(former)
    try:
        partial.rename(output)
    except OSError:
        former.rename(output)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _sweep(output: Path) -> None:
    """Remove what killed processes left beside ``output``; if one was killed between two renames, undo the first."""
    ours = re.compile(rf"\.{re.escape(output.name)}\.(partial|former|scratch)-(\d+)")
    for path in output.parent.iterdir():
        match = ours.fullmatch(path.name)
        if match is None or is_alive(int(match[2])):
            continue
        if match[1] == "former" and not output.exists():
            path.rename(output)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring the files to disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
