"""Compiled engines kept on disk between loads: a cache that can only save time, never break or change a load.

    ``$EMADEPLOY_CACHE`` or ~/.cache/emadeploy / <engine> / <key>.blob

The key is a digest of everything that the compiled engine depends on. A file is the blob and its SHA-256 digest, 32
bytes, at its end, because a damaged blob crashes engines that trust it. What is damaged, foreign or unreadable counts
as absent; where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from emadeploy.contract.cache import default_cache_dir
from emadeploy.contract.errors import DataError

#: Blobs of one engine that are kept; the one that was not loaded for the longest time makes room.
KEPT = 8
_DIGEST_BYTES = 32


class BlobCache:
    """The compiled blobs of one engine ('openvino'). No method raises where the disk is at fault."""

    def __init__(self, engine: str) -> None:
        self._folder: Path | None = None
        with suppress(DataError):  # without a home folder there is no cache
            self._folder = default_cache_dir() / engine

    def read(self, key: str) -> bytes | None:
        """Return the blob of ``key``; ``None`` where there is none, or none that is whole and this user's own."""
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            with path.open("rb") as file:
                # The blob runs as native code: one that another user may have put there is not loaded.
                if os.fstat(file.fileno()).st_uid not in (os.getuid(), 0):
                    return None
                size = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
                blob, digest = file.read(max(0, size)), file.read()
        except OSError:
            return None
        if hashlib.sha256(blob).digest() != digest:
            return None
        with suppress(OSError):
            os.utime(path)
        return blob

    def write(self, key: str, blob: bytes) -> bool:
        """Keep ``blob`` under ``key``, in one step; return whether that was possible."""
        if self._folder is None:
            return False
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(blob)
                file.write(hashlib.sha256(blob).digest())
            os.replace(partial, path)
            self._prune()
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            return False
        return True

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.blob"

    def _prune(self) -> None:
        assert self._folder is not None
        blobs = sorted(self._folder.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in blobs[KEPT:]:
            path.unlink(missing_ok=True)


def blob_key(parts: Iterable[object]) -> str:
    """Return the key for a blob that depends on ``parts``, each as its text."""
    digest = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        digest.update(b"%d:" % len(text) + text)  # with lengths, so that ('a', 'bc') is not ('ab', 'c')
    return digest.hexdigest()
