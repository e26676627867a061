"""One step from the former file to the new one; and what is said where that cannot be."""

import os

import pytest

from emadeploy.contract.errors import DataError
from emadeploy.contract.files import write_file


@pytest.mark.parametrize(("content", "found"), [(b"\x00\xff", b"\x00\xff"), ("Grüße\n", "Grüße\n".encode())])
def test_a_file_takes_the_place_of_the_former_one(tmp_path, content, found):
    path = tmp_path / "record.json"
    path.write_bytes(b"former")
    write_file(path, content)
    assert path.read_bytes() == found
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_place_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/record.json cannot be written: No such file or directory"):
        write_file(tmp_path / "nowhere" / "record.json", "")


def test_a_full_disk_leaves_the_former_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    path.write_text("former")

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(DataError, match=r"record.json cannot be written: No space left on device"):
        write_file(path, b"new")
    assert path.read_text() == "former"
    assert os.listdir(tmp_path) == ["record.json"]
