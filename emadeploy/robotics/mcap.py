"""Recordings in MCAP, the file format of ROS 2: written so that an end at any byte leaves a readable file.

After https://mcap.dev/spec, version 0: messages in chunks with checksums, an index at the end. A file that is being
written carries the suffix '.partial'. Where the disk refuses, what does not fit is cut off, and the rest gets its end.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from emadeploy.contract.errors import DataError

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
_MESSAGE_INDEX, _CHUNK_INDEX, _STATISTICS, _DATA_END = 0x07, 0x08, 0x0B, 0x0F
#: Bytes of messages after which a chunk is written: what a power cut can cost.
CHUNK_BYTES = 1 << 20


@dataclass
class _Chunk:
    """Records that are not on disk yet, and where in them the messages are: by channel, (nanoseconds, offset)."""

    records: bytearray = field(default_factory=bytearray)
    messages: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class _Written:
    """A chunk on disk: its record for the index, its messages by channel, its time, and where in the file it ends."""

    index: bytes
    counts: dict[int, int]
    start: int
    end: int
    file_end: int


class McapWriter:
    """Writes a recording to ``path``; :meth:`close` gives it its index and its name.

    Raises DataError where ``path`` exists already and where the disk refuses. What was written before is then closed,
    readable, under the name with '.partial', and the message says how much that is.
    """

    def __init__(self, path: Path, library: str) -> None:
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self._schemas: dict[str, tuple[int, bytes]] = {}
        self._channels: dict[str, tuple[int, bytes]] = {}
        self._chunk = _Chunk()
        self._written: list[_Written] = []
        if path.exists():
            raise DataError(f"{path} exists already: remove it, or name another file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.partial.open("wb", buffering=0)
            self._put(_MAGIC + _record(_HEADER, _text("ros2") + _text(library)))
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
        self._head = self._file.tell()

    def add_topic(self, topic: str, kind: str, definition: str) -> None:
        """Announce a ``topic`` of messages 'package/msg/Name' with their ``definition`` ('ros2msg'), once."""
        if kind not in self._schemas:
            number = len(self._schemas) + 1
            content = _u16(number) + _text(kind) + _text("ros2msg") + _text(definition)
            self._schemas[kind] = number, _record(_SCHEMA, content)
        number = len(self._channels) + 1
        content = _u16(number) + _u16(self._schemas[kind][0]) + _text(topic) + _text("cdr") + _u32(0)
        self._channels[topic] = number, _record(_CHANNEL, content)
        # In the data too, so that a file without its end can be read from its beginning.
        self._chunk.records += self._schemas[kind][1] + self._channels[topic][1]

    def write(self, topic: str, nanoseconds: int, data: bytes) -> None:
        """Add a message in CDR; ``nanoseconds``: when it was recorded. Raises DataError where the disk refuses."""
        number, _ = self._channels[topic]
        self._chunk.messages[number].append((nanoseconds, len(self._chunk.records)))
        head = _u16(number) + _u32(0) + _u64(nanoseconds) + _u64(nanoseconds)
        self._chunk.records += _record(_MESSAGE, head + data)
        if len(self._chunk.records) >= CHUNK_BYTES:
            self._do(self._flush)

    def close(self, *, whole: bool = True) -> None:
        """Write the index and, where the recording is ``whole``, take '.partial' off its name. May be called twice."""
        if self._file.closed:
            return
        self._do(self._finish)
        self._file.close()
        if whole:
            os.replace(self.partial, self.path)

    def _do(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._salvage()
            count = sum(sum(chunk.counts.values()) for chunk in self._written)
            kept = f"the {count} messages before are in {self.partial}" if count else "nothing was written"
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}; {kept}") from None

    def _salvage(self) -> None:
        """Cut off what did not fit, and chunk after chunk until the index does; close the file."""
        self._chunk = _Chunk()
        while True:
            with suppress(OSError):
                self._finish()
                break
            if not self._written:
                break
            self._written.pop()
        self._file.close()

    def _rewind(self) -> int:
        """Go back to the end of what is whole, and return where that is: a signal may have cut a write in two."""
        end = self._written[-1].file_end if self._written else self._head
        self._file.truncate(end)
        return self._file.seek(end)

    def _flush(self) -> None:
        chunk, position = self._chunk, self._rewind()
        if not chunk.records:
            return
        times = [time for found in chunk.messages.values() for time, _ in found] or [0]
        start, end, size = min(times), max(times), len(chunk.records)
        span, length = _u64(start) + _u64(end), _u64(size)
        plain = _text("")  # no compression: float maps shrink by a tenth, for several times the time
        self._put(_record(_CHUNK, span + length + _u32(zlib.crc32(chunk.records)) + plain + length + chunk.records))
        chunk_end, offsets = self._file.tell(), b""
        for number, found in chunk.messages.items():
            offsets += _u16(number) + _u64(self._file.tell())
            entries = b"".join(struct.pack("<QQ", *entry) for entry in found)
            self._put(_record(_MESSAGE_INDEX, _u16(number) + _sized(entries)))
        file_end = self._file.tell()
        where = _u64(position) + _u64(chunk_end - position) + _sized(offsets) + _u64(file_end - chunk_end)
        index = _record(_CHUNK_INDEX, span + where + plain + length + length)
        counts = {number: len(found) for number, found in chunk.messages.items()}
        self._written.append(_Written(index, counts, start, end, file_end))
        self._chunk = _Chunk()

    def _finish(self) -> None:
        self._flush()
        self._put(_record(_DATA_END, _u32(0)))
        summary = self._file.tell()
        counts: Counter[int] = Counter()
        for chunk in self._written:
            counts.update(chunk.counts)
        told = [chunk for chunk in self._written if chunk.counts]
        start, end = min((chunk.start for chunk in told), default=0), max((chunk.end for chunk in told), default=0)
        sizes = (counts.total(), len(self._schemas), len(self._channels), 0, 0, len(self._written), start, end)
        by_channel = b"".join(_u16(number) + _u64(count) for number, count in sorted(counts.items()))
        records = [record for _, record in (*self._schemas.values(), *self._channels.values())]
        records += [chunk.index for chunk in self._written]
        records.append(_record(_STATISTICS, struct.pack("<QHIIIIQQ", *sizes) + _sized(by_channel)))
        self._put(b"".join(records) + _record(_FOOTER, _u64(summary) + _u64(0) + _u32(0)) + _MAGIC)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]  # a disk that is nearly full takes a part


def _record(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + _u64(len(content)) + content


def _text(text: str) -> bytes:
    return _sized(text.encode())


def _sized(data: bytes) -> bytes:
    return _u32(len(data)) + data


def _u16(value: int) -> bytes:
    return struct.pack("<H", value)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)
