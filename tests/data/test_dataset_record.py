"""dataset.json: what was converted, and how."""

import pytest

from emadeploy.contract.errors import DataError
from emadeploy.data.record import DatasetRecord, read_record

RECORD = DatasetRecord("nyuv2", "nyuv2-40", (288, 384), "camera_optical", {"depth": "metres"})


def test_what_is_written_is_read(tmp_path):
    assert read_record(tmp_path, "nyuv2") is None
    (tmp_path / "dataset.json").write_text(RECORD.to_json())
    assert read_record(tmp_path, "nyuv2") == RECORD


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "dataset.json").mkdir()
    with pytest.raises(DataError, match=r"dataset.json cannot be read"):
        read_record(tmp_path, "nyuv2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a record that `emadeploy data convert` wrote"),
        ("[]", "is not a mapping but list"),
        ('{"dataset": "nyuv2", "classes": "nyuv2-13", "size": [4, 8]}', "is of nyuv2; open the folder as nyuv2:"),
        ('{"dataset": "cityscapes", "classes": "mine", "size": [4, 8]}', "class set 'mine' is unknown"),
        ('{"dataset": "cityscapes", "classes": "cityscapes-19"}', r"size \(\) is not height and width"),
        ('{"dataset": "cityscapes", "classes": "cityscapes-19", "size": [4, 8], "x": 1}', "unknown field 'x'"),
        ('{"dataset": "cityscapes", "classes": "cityscapes-19", "size": [4, 8], "schema": 2}', "schema 2 is not 1"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path, "cityscapes")
