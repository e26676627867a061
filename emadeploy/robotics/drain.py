"""A file for writers that cannot bear an error: what they write goes through a pipe, and the error is told here."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_AT_ONCE = 1 << 16


class Drain:
    """Takes whatever is written to :attr:`entrance` and puts it into the file ``path``, in a thread of its own.

    Once the disk refuses, ``error`` says why; the rest is taken all the same and let go, so that no writer waits for
    ever. Raises OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = path.open("wb", buffering=0)
        self._outlet, self._inlet = os.pipe()
        #: The name under which another part of this process opens the pipe.
        self.entrance = f"/dev/fd/{self._inlet}"
        self._thread = threading.Thread(target=self._pump, name="emadeploy-drain", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until all is in the file, and close it; the writer must have closed its end before."""
        os.close(self._inlet)
        self._thread.join()
        self._file.close()

    def _pump(self) -> None:
        try:
            while data := os.read(self._outlet, _AT_ONCE):
                if self.error is None:
                    self._write(data)
        finally:
            os.close(self._outlet)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a disk that is nearly full takes a part
        except OSError as error:
            self.error = error
