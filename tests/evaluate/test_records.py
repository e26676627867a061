"""Records of evaluations: written, read again, compared."""

import pytest

from emadeploy.contract.errors import DataError
from emadeploy.evaluate.records import check_same_data, read_record, with_gain, write_record

RECORD = {
    "schema": 1,
    "data": "rooms:seed=7,count=2,size=32x32 val",
    "frames": 2,
    "tasks": {"depth": {"abs": 0.4, "rel": 0.2, "rmse": 0.9}},
}
BASELINE = {**RECORD, "tasks": {"depth": {"abs": 0.5, "rel": 0.2, "rmse": 0.9}}}


def test_a_record_is_read_as_written(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, BASELINE)
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"record.json cannot be written"):
        write_record(tmp_path / "no-folder" / "record.json", RECORD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not json"),
        ("[]", "has no metrics by task"),
        ('{"tasks": []}', "has no metrics by task"),
        ('{"tasks": {}, "schema": 2}', "has schema 2, this version of emadeploy reads 1"),
        ('{"tasks": {"depth": 3}, "schema": 1}', "the metrics of 'depth' are not numbers"),
        ('{"tasks": {"depth": {"abs": "good"}}, "schema": 1}', "the metrics of 'depth' are not numbers"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"baseline.json.* ?{message}"):
        read_record(path)


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.json cannot be read: No such file.*emadeploy eval --json"):
        read_record(tmp_path / "none.json")


def test_the_gain_is_added_and_says_what_it_is_over():
    gained = with_gain(RECORD, BASELINE)
    assert gained == {**RECORD, "delta_m": pytest.approx(20), "delta_m_over": "primary", "gains": gained["gains"]}
    assert gained["gains"] == {"depth": pytest.approx(20)}
    assert with_gain(RECORD, BASELINE, over="mean")["delta_m"] == pytest.approx(20 / 3)


def test_a_baseline_of_other_data_is_refused():
    for change in ({"data": "rooms:seed=8,count=2,size=32x32 val"}, {"frames": 3}, {"data": None}):
        with pytest.raises(DataError, match=r"the baseline was measured on .*needs the same data"):
            with_gain(RECORD, {**BASELINE, **change})


def test_both_sides_are_named():
    other = {**BASELINE, "data": "nyuv2:/data val", "frames": 654}
    expected = "measured on 654 frames of nyuv2:/data val, this on 2 frames of rooms:seed=7,count=2,size=32x32 val"
    with pytest.raises(DataError, match=expected):
        with_gain(RECORD, other)
    with pytest.raises(DataError, match=expected):
        check_same_data(other, RECORD["data"], RECORD["frames"])
    check_same_data(BASELINE, RECORD["data"], RECORD["frames"])


def test_a_baseline_of_other_truths_is_refused():
    counted = {**RECORD, "task_frames": {"depth": 2, "semseg": 0}}
    assert with_gain(counted, BASELINE)["delta_m"] == pytest.approx(20)  # an earlier version did not say
    assert with_gain(counted, {**BASELINE, "task_frames": {"depth": 2}})["delta_m"] == pytest.approx(20)
    with pytest.raises(DataError, match=r"the baseline's depth was measured on 1 frames of .*, this one's on 2 of"):
        with_gain(counted, {**BASELINE, "task_frames": {"depth": 1}})


def test_a_folder_may_lie_elsewhere():
    here, there = {**RECORD, "data": "nyuv2:/data val"}, {**BASELINE, "data": "nyuv2:/mnt/nyu val"}
    assert with_gain(here, there)["delta_m"] == pytest.approx(20)
    with pytest.raises(DataError, match="needs the same data"):
        with_gain(here, {**there, "data": "cityscapes:/data val"})
