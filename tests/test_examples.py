"""The examples run: the tutorial from its first command to its last, the robot against a room whose truth is known."""

import math
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from emadeploy.cli import app
from emadeploy.contract.geometry import Intrinsics

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

EXAMPLES = Path(__file__).parents[1] / "examples"
TUTORIAL = (EXAMPLES / "tutorial.md").read_text("utf-8")
#: (language, code) in the order of the document.
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TUTORIAL, flags=re.MULTILINE | re.DOTALL)


def test_the_tutorial_runs_from_end_to_end(
    make_artifact: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("rerun", "rosbags", "embreex"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    said = []
    for language, code in BLOCKS:
        # In this process: a dozen of their own would take half a minute to import what they need.
        if language == "python":
            exec(compile(code, "tutorial.md", "exec"), {})
        elif code.startswith("python "):
            _program, script, *arguments = shlex.split(code)
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        elif code.startswith("emadeploy export "):
            # A minute of work that has tests of its own; its arguments are checked, a tiny artifact stands in.
            _parse(shlex.split(code)[1:])
            make_artifact("robot")
        else:
            monkeypatch.setattr(sys, "argv", shlex.split(code))
            with pytest.raises(SystemExit) as end:
                app.main()
            assert end.value.code == 0, capsys.readouterr()
        said.append((language, capsys.readouterr().out))
    made = {path.name for path in tmp_path.iterdir()}
    assert {"robot", "drive", "maps", "drive.mjpeg", "drive.rrd", "drive.mcap"} <= made
    printed = [out for language, out in said if language == "python"]
    assert len(printed) == 5
    assert "(96, 128) float32" in printed[1]
    assert "/emadeploy/points sensor_msgs/msg/PointCloud2 4" in printed[2]
    assert "answered=4" in printed[4]
    assert said[-1][1].count("obstacle at") == 4


def _parse(arguments: list[str]) -> None:
    group = typer.main.get_command(app.app)
    name, *rest = arguments
    group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]


def test_links_of_the_tutorial_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", TUTORIAL) if "://" not in target]
    assert len(targets) == 3
    assert [target for target in targets if not (EXAMPLES / target).exists()] == []


FLOOR, WALL = 4, 11
CAMERA = Intrinsics.from_fov((96, 128), 60)


def room(box_at: float | None, wall_at: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Return depth and labels of a floor half a metre below the camera, a wall, and a box as wide as the robot."""
    x_W, y_H1 = CAMERA.slopes()
    with np.errstate(divide="ignore"):
        floor_H1 = np.where(y_H1 > 0, 0.5 / y_H1, np.inf)
    depth = np.broadcast_to(np.minimum(floor_H1, wall_at), (96, 128)).astype(np.float32)
    labels = np.where(depth < wall_at, FLOOR, WALL).astype(np.uint8)
    if box_at is not None:
        box = (np.abs(x_W * box_at) < 0.2) & (y_H1 * box_at > -0.1) & (depth > box_at)
        depth, labels = np.where(box, np.float32(box_at), depth), np.where(box, 3, labels).astype(np.uint8)
    return depth, labels


def test_the_robot_sees_what_stands_in_its_way() -> None:
    look_ahead = runpy.run_path(str(EXAMPLES / "obstacle_distance.py"))["look_ahead"]
    distance, free = look_ahead(*room(box_at=2.0), FLOOR, CAMERA)
    assert distance == pytest.approx(2.0)
    assert 1.7 < free < 2.0
    distance, free = look_ahead(*room(box_at=None), FLOOR, CAMERA)
    assert distance == pytest.approx(5.0)
    assert 4.0 < free < 5.0
    # Beside the way, above the robot, and too little to count.
    depth, labels = room(box_at=None)
    depth[:, :10] = depth[:3] = depth[60, 60] = 1.0
    labels[:, :10] = labels[:3] = labels[60, 60] = 3
    assert look_ahead(depth, labels, FLOOR, CAMERA)[0] == pytest.approx(5.0)
    # Without any depth nothing is known to be in the way, and no floor to be free.
    assert look_ahead(np.zeros_like(depth), labels, FLOOR, CAMERA) == (math.inf, 0.0)
