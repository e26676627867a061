"""Artifacts are replaced in one step; nothing half-written stays, and nothing else is overwritten."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emadeploy.build.folder import assembled, check_replaceable, scratch
from emadeploy.contract.errors import BuildError


def make(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    (folder / "model.onnx").write_text(text)


def fail_halfway(output: Path, error: BaseException) -> None:
    with assembled(output) as folder:
        make(folder, "half")
        raise error


def test_made_and_replaced(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "a.onnxruntime-fp32"
    for text in ("first", "second"):
        with assembled(output) as folder:
            make(folder, text)
            assert folder.parent == output.parent
        assert (output / "model.onnx").read_text() == text
        assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "model.onnx"]
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "a"
    with pytest.raises(ZeroDivisionError):
        fail_halfway(output, ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []
    with assembled(output) as folder:
        make(folder, "first")
    with pytest.raises(KeyboardInterrupt):
        fail_halfway(output, KeyboardInterrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (output / "model.onnx").read_text() == "first"


def test_a_full_disk_is_an_error_of_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"a cannot be written: No space left on device; nothing was left there"):
        fail_halfway(tmp_path / "a", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="cannot be written"), assembled(tmp_path / "file" / "a"):
        pass


def test_only_artifacts_are_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    check_replaceable(mine)  # empty: nothing to lose
    (mine / "cat.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (mine, tmp_path / "file", tmp_path / "dangling"):
        with pytest.raises(BuildError, match="exists and is not an artifact: choose another output"):
            check_replaceable(path)
    (mine / "manifest.json").write_text("of a version to come")
    check_replaceable(mine)


KILLED = """
import sys, time
from pathlib import Path
from emadeploy.build import folder as f
output = Path(sys.argv[1])
if sys.argv[2] == "between":
    move = Path.rename
    def rename(self, target):
        move(self, target)
        if "former" in str(target):
            print("here", flush=True)
            time.sleep(60)
    Path.rename = rename
with f.scratch(output), f.assembled(output) as folder:
    (folder / "manifest.json").write_text("new")
    if sys.argv[2] == "before":
        print("here", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["before", "between"])
def test_killed_at_any_moment(tmp_path: Path, moment: str) -> None:
    output = tmp_path / "a"
    with assembled(output) as folder:
        make(folder, "old")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(output), moment], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if moment == "before":
        assert (output / "model.onnx").read_text() == "old"
    assert len(list(tmp_path.iterdir())) > 1
    # The next export sweeps up, and puts back what the kill left between two names.
    with scratch(output):
        assert (output / "model.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_others_at_work_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f".a.partial-{os.getppid()}"
    unrelated = tmp_path / ".a.partial-notes"
    theirs.mkdir()
    unrelated.mkdir()
    with assembled(tmp_path / "a") as folder:
        make(folder, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a", theirs.name, unrelated.name}
