"""The maps of a frame as files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import DataError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.save import save_outputs, to_millimetres

cv2 = pytest.importorskip("cv2")

SEMSEG, DEPTH, NORMALS = TaskSpec("semseg", channels=3), TaskSpec("depth"), TaskSpec("normals")
OUTPUTS = TaskOutputs(
    2.5,
    semseg=np.array([[0, 1], [2, 255]], np.uint8),
    depth=np.array([[0.0, 1.2346], [65.535, 100.0]], np.float32),
    normals=np.full((2, 2, 3), (0, 0, -1), np.float32),
)


def test_every_map_becomes_a_picture_and_all_go_into_the_npz(tmp_path: Path) -> None:
    tasks = (SEMSEG, DEPTH, NORMALS)
    written = save_outputs(tmp_path / "new" / "out", "a", OUTPUTS, tasks)
    expected = ["a.semseg.png", "a.depth.png", "a.depth_mm.png", "a.normals.png", "a.npz"]
    assert [path.name for path in written] == expected
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(expected)
    for task in tasks:
        shown = cv2.imread(str(tmp_path / "new" / "out" / f"a.{task.name}.png"))[:, :, ::-1]
        np.testing.assert_array_equal(shown, colourise(OUTPUTS.maps[task.name], task))
    with np.load(written[-1]) as archive:
        assert archive["stamp"] == 2.5
        for name, array in OUTPUTS.maps.items():
            np.testing.assert_array_equal(archive[name], array)
            assert archive[name].dtype == array.dtype


def test_depth_in_millimetres_saturates_and_keeps_zero_for_no_answer(tmp_path: Path) -> None:
    save_outputs(tmp_path, "a", OUTPUTS, (DEPTH,))
    depth = cv2.imread(str(tmp_path / "a.depth_mm.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    assert depth.tolist() == [[0, 1235], [65535, 65535]]
    assert to_millimetres(np.array([[9.9995]], np.float32))[0, 0] in (9999, 10000)


def test_inverse_depth_is_never_written_as_millimetres(tmp_path: Path) -> None:
    inverse = TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger")
    save_outputs(tmp_path, "a", OUTPUTS, (inverse,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.depth.png", "a.npz"]


def test_a_disk_that_refuses_is_a_data_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"folder .*file cannot be made"):
        save_outputs(tmp_path / "file", "a", OUTPUTS, (DEPTH,))
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(DataError, match=r"a.npz cannot be written"):
        save_outputs(tmp_path, "a", OUTPUTS, (DEPTH,))
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


KILLED = """
import os, sys
from pathlib import Path
from emadeploy.robotics import save

def die(file):
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), 9)

save._write(Path(sys.argv[1]), die)
"""


def test_a_killed_run_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"whole"
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["a.npz"]
