"""The cache of compiled engines: what it gives back, and that nothing on the disk can hurt."""

import os
from pathlib import Path

import pytest

from emadeploy.runtime import blobs
from emadeploy.runtime.blobs import BlobCache, blob_key


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobCache:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path))
    return BlobCache("engine")


def only(folder: Path) -> Path:
    (path,) = (folder / "engine").iterdir()
    return path


@pytest.mark.parametrize("blob", [b"", b"a", bytes(range(256)) * 999])
def test_there_and_back(cache: BlobCache, blob: bytes) -> None:
    assert cache.read("k") is None
    assert cache.write("k", blob)
    assert cache.read("k") == blob
    assert cache.read("other") is None
    assert cache.write("k", b"newer")
    assert cache.read("k") == b"newer"


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "grown", "folder"])
def test_what_is_damaged_is_not_there_and_can_be_written_again(cache: BlobCache, tmp_path: Path, harm: str) -> None:
    cache.write("k", b"0123456789" * 20)
    path = only(tmp_path)
    whole = path.read_bytes()
    if harm == "folder":
        path.unlink()
        path.mkdir()
    else:
        harmed = {"flip": b"x" + whole[1:], "cut": whole[:-1], "empty": b"", "grown": whole + b"x"}
        path.write_bytes(harmed[harm])
    assert cache.read("k") is None
    assert cache.write("k", b"again") is (harm != "folder")
    assert cache.read("k") == (None if harm == "folder" else b"again")
    assert [p.name for p in path.parent.iterdir()] == ["k.blob"]


def test_another_user_s_blob_is_not_loaded(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("k", b"native code")
    found = os.fstat

    def foreign(descriptor: int) -> os.stat_result:
        facts = list(found(descriptor))
        facts[4] = os.getuid() + 1
        return os.stat_result(facts)

    monkeypatch.setattr(blobs.os, "fstat", foreign)
    assert cache.read("k") is None
    monkeypatch.undo()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "file"))
    assert not BlobCache("engine").write("k", b"blob")
    assert BlobCache("engine").read("k") is None


def test_a_full_disk_leaves_no_half(cache: BlobCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blobs.os, "replace", full)
    assert not cache.write("k", b"blob")
    assert list((tmp_path / "engine").iterdir()) == []


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EMADEPLOY_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    cache = BlobCache("engine")
    assert not cache.write("k", b"blob")
    assert cache.read("k") is None


def test_the_one_not_used_for_longest_makes_room(cache: BlobCache, tmp_path: Path) -> None:
    for index in range(blobs.KEPT):
        cache.write(f"k{index}", b"blob")
        os.utime(tmp_path / "engine" / f"k{index}.blob", (index, index))
    assert cache.read("k0") is not None  # and is the newest by that
    cache.write("new", b"blob")
    assert cache.read("k1") is None
    assert cache.read("k0") is not None
    assert len(list((tmp_path / "engine").iterdir())) == blobs.KEPT


def test_keys_differ_where_a_part_does() -> None:
    parts = [["a", "bc"], ["ab", "c"], ["a", "bc", ""], ["a", "bd"], [("a", "bc")]]
    assert len({blob_key(part) for part in parts}) == len(parts)
    assert blob_key(["a", 1]) == blob_key(["a", 1])
