"""`emadeploy data convert` and `data check`, as a user calls them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from layouts import write_raw_cityscapes, write_raw_nyuv2, write_user_folder
from typer.testing import CliRunner

from emadeploy.cli.app import app
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.folder_spec import parse_folder_spec
from emadeploy.data.source import parse_data

pytest.importorskip("PIL")
cv2 = pytest.importorskip("cv2")


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)], terminal_width=200, catch_exceptions=True)


def test_cityscapes_is_converted_and_checked(tmp_path):
    write_raw_cityscapes(tmp_path / "raw")
    done = run("convert", tmp_path / "raw", "-o", tmp_path / "out", "--size", "16x32")
    assert done.exit_code == 0, done.output
    assert "depth: disparity of the nearest pixel" in done.output
    assert f"4 frames of 16 x 32, cityscapes-19: use cityscapes:{tmp_path / 'out'}" in done.output
    record, picture = tmp_path / "record.json", tmp_path / "sheet.png"
    done = run("check", f"cityscapes:{tmp_path / 'out'}", "--json", record, "--picture", picture)
    assert done.exit_code == 0, done.output
    assert "frames 3, corrupt 0" in done.output
    stored = json.loads(record.read_text())
    assert stored["frames"] == 3
    assert stored["sizes"] == {"16x32": 3}
    assert stored["tasks"]["depth"]["unit"] == "inverse_depth"
    assert 0 < stored["tasks"]["depth"]["max"] < 0.4923
    assert cv2.imread(str(picture)).shape[1] == 6 + 3 * (256 + 6)


def test_seven_classes_are_named_by_their_own_data(tmp_path):
    write_raw_cityscapes(tmp_path / "raw")
    done = run("convert", tmp_path / "raw", "-o", tmp_path / "out", "--size", "4x8", "--classes", 7)
    assert f"use cityscapes-7:{tmp_path / 'out'}" in done.output
    assert run("check", f"cityscapes-7:{tmp_path / 'out'}", "--split", "val").exit_code == 0
    done = run("check", f"cityscapes:{tmp_path / 'out'}")
    assert isinstance(done.exception, DataError)


def test_nyuv2_is_converted_with_splits_from_elsewhere(tmp_path):
    pytest.importorskip("h5py")
    pytest.importorskip("scipy")
    write_raw_nyuv2(tmp_path / "raw")
    (tmp_path / "raw" / "splits.mat").rename(tmp_path / "s.mat")
    arguments = ("convert", tmp_path / "raw", "-o", tmp_path / "out", "--size", "24x32", "--classes", 40)
    assert isinstance(run(*arguments).exception, DataError)
    done = run(*arguments, "--splits", tmp_path / "s.mat")
    assert done.exit_code == 0, done.output
    assert "normal: computed" in done.output
    assert f"4 frames of 24 x 32, nyuv2-40: use nyuv2:{tmp_path / 'out'}" in done.output
    done = run("check", f"nyuv2:{tmp_path / 'out'}")
    assert done.exit_code == 0
    assert "other prop" in done.output


def test_corrupt_files_are_named_and_the_status_is_1(tmp_path):
    write_user_folder(tmp_path)
    (tmp_path / "labels" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    record = tmp_path / "record.json"
    done = run("check", f"folder:{tmp_path}", "--json", record)
    assert done.exit_code == 1
    assert "frames 2, corrupt 1" in done.output
    assert "labels/a.png is not a PNG file" in done.stderr
    stored = json.loads(record.read_text())
    assert (stored["readable"], len(stored["corrupt"])) == (1, 1)
    # What could be read is told all the same, and what a frame lacks is no fault.
    assert stored["tasks"]["semseg"]["frames"] == 1
    assert stored["tasks"]["depth"]["frames"] == 0


def test_pictures_without_truth_are_looked_at_too(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.full((4, 6, 3), 9, np.uint8))[1].tobytes())
    done = run("check", f"images:{tmp_path}", "--picture", tmp_path / "sheet.png")
    assert done.exit_code == 0
    assert "frames 1, corrupt 0" in done.output
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("check", "kitti:/data"), SpecError, "'kitti' is unknown"),
        (("check", "nyuv2:/nowhere", "--split", "test"), SpecError, "split 'test' is unknown"),
        (("check", "folder:/nowhere"), DataError, "dataset.yml is not there"),
        (("convert", "/nowhere", "-o", "out"), DataError, "does not exist"),
        (("convert", "/nowhere", "-o", "out", "--size", "288"), SpecError, "size '288' is not HEIGHTxWIDTH"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, kind, message):
    done = run(*arguments)
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    write_user_folder(tmp_path)
    for option in ("--json", "--picture"):
        done = run("check", f"folder:{tmp_path}", option, tmp_path / "nowhere" / "file")
        assert isinstance(done.exception, DataError)
        assert "nowhere/file cannot be written" in str(done.exception)


def test_the_commands_of_the_documentation_are_right():
    """Every command parses, every DATA is known, and the example of dataset.yml is read."""
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("emadeploy ")]
    assert {tuple(words[:2]) for words in commands} >= {("data", "check"), ("data", "convert"), ("train", "--model")}
    for words in commands:
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        parsed = command.make_context(command.name, words).params
        if "data" in parsed:
            assert str(parse_data(parsed["data"])) == parsed["data"]
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert len(parse_folder_spec(yaml.safe_load(example)).tasks) == 4
