"""PNG files of labels as they are, MATLAB and yaml files: read, or named in an error."""

import struct
import sys
import zlib

import numpy as np
import pytest
from layouts import write_palette_png, write_png

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.data.optional import open_hdf5, read_matlab, read_png, read_yaml


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(bits: int, rows: list[bytes], width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8), ((5, 7, 3), np.uint16)]
)
def test_numbers_come_as_they_were_written(tmp_path, shape, dtype):
    stored = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    write_png(tmp_path / "a.png", stored)
    found = read_png(tmp_path / "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, stored)


def test_a_palette_gives_its_indices(tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette_png(tmp_path / "a.png", stored)
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), stored)


def test_one_bit_is_true_or_false(tmp_path):
    (tmp_path / "a.png").write_bytes(grey_png(1, [b"\xa0", b"\x40"], 4))
    found = read_png(tmp_path / "a.png")
    assert found.dtype == bool
    assert found.tolist() == [[True, False, True, False], [False, True, False, False]]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_that_readers_scale_is_refused(tmp_path, bits):
    (tmp_path / "a.png").write_bytes(grey_png(bits, [b"\x1b\x1b"], 4))
    with pytest.raises(DataError, match=rf"a.png has grey of {bits} bits; save it with 8 or 16"):
        read_png(tmp_path / "a.png")


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match=r"a.png cannot be read: No such file"):
        read_png(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"a.png is not a PNG file"):
        read_png(path)
    write_png(path, np.zeros((5, 7, 4), np.uint8))
    with pytest.raises(DataError, match=r"a.png has an alpha channel"):
        read_png(path)
    for shape, dtype in (((50, 70), np.uint8), ((50, 70, 3), np.uint16)):
        write_png(path, np.random.default_rng(1).integers(0, 255, shape).astype(dtype))
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DataError, match=r"a.png is damaged"):
            read_png(path)


def test_matlab_files_are_read_or_named(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "a.mat"
    with pytest.raises(DataError, match=r"a.mat is not there"):
        read_matlab(path, "x")
    scipy_io.savemat(path, {"x": np.eye(3), "y": 1})
    assert list(read_matlab(path, "x")) == ["x"]
    np.testing.assert_array_equal(read_matlab(path, "x")["x"], np.eye(3))
    with pytest.raises(DataError, match=r"a.mat holds no z, w"):
        read_matlab(path, "z", "w")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=r"a.mat (cannot be read|holds no x)"):
        read_matlab(path, "x")


def test_matlab_7_3_is_told_apart(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = 1
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header + path.read_bytes()[len(header) :])
    with pytest.raises(DataError, match=r"a.mat is of MATLAB 7.3; save it with -v7"):
        read_matlab(path, "x")
    with open_hdf5(path) as file:
        assert file["x"][()] == 1
    with pytest.raises(DataError, match=r"b.mat cannot be read as a MATLAB 7.3 file"):
        open_hdf5(tmp_path / "b.mat")


def test_yaml_files_are_read_or_named(tmp_path):
    path = tmp_path / "a.yml"
    with pytest.raises(DataError, match=r"a.yml is not there"):
        read_yaml(path)
    path.write_text("a: {b: 1}")
    assert read_yaml(path) == {"a": {"b": 1}}
    path.write_text("a: {b: 1")
    with pytest.raises(DataError, match=r"a.yml is not yaml: .*line 1"):
        read_yaml(path)
    path.write_text("- a")
    with pytest.raises(DataError, match=r"a.yml is not a mapping but list"):
        read_yaml(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"a.yml cannot be read"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("module", "read"),
    [("PIL", read_png), ("scipy.io", lambda path: read_matlab(path, "x")), ("h5py", open_hdf5), ("yaml", read_yaml)],
)
def test_without_its_package_the_line_that_installs_it(tmp_path, monkeypatch, module, read):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendMissing, match=r"pip install 'emadeploy\[data\]'"):
        read(tmp_path / "file")
