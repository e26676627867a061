"""Recordings in MCAP, read by Foxglove's own library: whole, cut off, and on a disk that is full."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from emadeploy.contract.errors import DataError
from emadeploy.robotics import mcap
from emadeploy.robotics.mcap import McapWriter

reader = pytest.importorskip("mcap.reader")

DEFINITION = "uint8[] data\n"


def fill(writer: McapWriter, count: int, size: int = 4000) -> None:
    for topic in ("/a", "/b"):
        writer.add_topic(topic, "test_msgs/msg/Bytes", DEFINITION)
    for index in range(count):
        writer.write("/ab"[:1] + "ab"[index % 2], 1_700_000_000_000_000_000 + index, bytes([index % 256]) * size)


def read(path: Path) -> list[tuple[str, int, int, bytes]]:
    with path.open("rb") as file:
        found = reader.make_reader(file, validate_crcs=True).iter_messages()
        return [(channel.topic, m.log_time, m.data[0], m.data[-1:]) for _, channel, m in found]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    writer = McapWriter(tmp_path / "new" / "out.mcap", "test")
    fill(writer, 700)
    assert not writer.path.exists()
    assert writer.partial.exists()
    writer.close()
    writer.close()
    assert [path.name for path in writer.path.parent.iterdir()] == ["out.mcap"]
    found = read(writer.path)
    assert found == [
        (("/a", "/b")[i % 2], 1_700_000_000_000_000_000 + i, i % 256, bytes([i % 256])) for i in range(700)
    ]
    with writer.path.open("rb") as file:
        opened = reader.make_reader(file)
        assert opened.get_header().profile == "ros2"
        summary = opened.get_summary()
    assert summary.statistics.message_count == 700
    assert summary.statistics.channel_message_counts == {1: 350, 2: 350}
    assert len(summary.chunk_indexes) == summary.statistics.chunk_count == 3
    assert summary.statistics.message_end_time - summary.statistics.message_start_time == 699
    assert [schema.data for schema in summary.schemas.values()] == [DEFINITION.encode()]


def test_the_index_leads_to_single_messages(tmp_path: Path) -> None:
    writer = McapWriter(tmp_path / "out.mcap", "test")
    fill(writer, 700)
    writer.close()
    begin = 1_700_000_000_000_000_000
    with writer.path.open("rb") as file:
        found = reader.make_reader(file).iter_messages(
            topics=["/b"], starting_at=begin + 300, ending_before=begin + 310
        )
        assert [m.log_time - begin for _, _, m in found] == [301, 303, 305, 307, 309]


def test_an_empty_recording_can_be_read(tmp_path: Path) -> None:
    writer = McapWriter(tmp_path / "out.mcap", "test")
    writer.close()
    assert read(writer.path) == []


def test_cut_off_anywhere_it_can_be_read_up_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcap.stream_reader import StreamReader

    monkeypatch.setattr(mcap, "CHUNK_BYTES", 10_000)
    writer = McapWriter(tmp_path / "out.mcap", "test")
    fill(writer, 30)
    # As a power cut leaves it: never closed.
    data = writer.partial.read_bytes()
    for length in (len(data), len(data) - 1, len(data) // 2):
        seen = 0
        try:
            for record in StreamReader(io.BytesIO(data[:length])).records:
                seen += type(record).__name__ == "Message"
        except Exception:
            pass  # the end is missing
        assert seen >= 3 * length // 10_000 * 0.7 - 3
        assert seen > 0
    writer.close()


def test_what_ends_early_keeps_its_suffix(tmp_path: Path) -> None:
    writer = McapWriter(tmp_path / "out.mcap", "test")
    fill(writer, 3)
    writer.close(whole=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mcap.partial"]
    assert len(read(writer.partial)) == 3


def test_a_signal_in_the_middle_of_a_write_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = McapWriter(tmp_path / "out.mcap", "test")
    fill(writer, 300)
    whole, put = writer._put, []

    def interrupted(data: bytes) -> None:
        put.append(data)
        if len(put) == 2:
            whole(data[: len(data) // 2])
            raise KeyboardInterrupt
        whole(data)

    monkeypatch.setattr(writer, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    writer.close()
    assert [message[2] for message in read(writer.path)] == [index % 256 for index in range(300)]


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.mcap").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"out\.mcap exists already: remove it, or name another file"):
        McapWriter(tmp_path / "out.mcap", "test")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"out\.mcap cannot be written: Not a directory|File exists"):
        McapWriter(tmp_path / "file" / "out.mcap", "test")


FULL = """
import resource, sys
from pathlib import Path
from emadeploy.contract.errors import DataError
from emadeploy.robotics.mcap import McapWriter

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    writer = McapWriter(Path(sys.argv[1]), "test")
    writer.add_topic("/a", "test_msgs/msg/Bytes", "uint8[] data")
    for index in range(2000):
        writer.write("/a", index, bytes([index % 256]) * 4000)
    writer.close()
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize(("limit", "least"), [(3_000_000, 500), (2_099_500, 250), (100_000, 0), (20, 0)])
def test_on_a_full_disk_the_messages_before_stay_readable(limit: int, least: int, tmp_path: Path) -> None:
    path = tmp_path / "out.mcap"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit)], capture_output=True, text=True, check=True
    )
    said = done.stdout.strip()
    assert f"{path} cannot be written: File too large" in said
    assert not path.exists()
    partial = path.with_name("out.mcap.partial")
    if limit > 1000:
        found = read(partial)
        assert [message[1] for message in found] == list(range(len(found)))
        assert len(found) >= least
        expected = f"the {len(found)} messages before are in {partial}" if found else "nothing was written"
        assert said.endswith(expected)
