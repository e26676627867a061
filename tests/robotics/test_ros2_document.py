"""docs/ros2.md cannot rot: its tables are those of the code."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import rclpy_fake
import typer

from emadeploy.cli.app import app
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.ros.maps import topics_of

pytest.importorskip("rosbags")

TEXT = (Path(__file__).parents[2] / "docs" / "ros2.md").read_text("utf-8")


def table(section: str) -> dict[str, list[str]]:
    """Return the first table of a section: names in its first column -> the other cells."""
    body = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name: row[1:] for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def test_every_topic_is_told_with_its_type() -> None:
    kinds = ("semseg", "human_parts")
    tasks = [TaskSpec(kind, channels=3) for kind in kinds] + [
        TaskSpec(kind) for kind in ("depth", "normals", "edge", "saliency")
    ]
    told = table("Topics")
    topics = topics_of(tasks)
    assert told.keys() == topics.keys()
    for name, kind in topics.items():
        if not name.startswith("human_parts"):
            assert f"`{kind.replace('/msg/', '/')}`" in told[name][0], name


def test_every_parameter_is_told_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    rclpy_fake.install(monkeypatch)
    name = "emadeploy.robotics.ros2_node"
    sys.modules.pop(name, None)
    ros2_node = importlib.import_module(name)
    sys.modules.pop(name)  # what it was made of goes with the stand-in
    told = table("The node")
    flags = {name for name in told if name.startswith("publish_")}
    assert told.keys() - flags == ros2_node.PARAMETERS.keys()
    assert flags == {"publish_depth", "publish_labels"}
    for name, default in ros2_node.PARAMETERS.items():
        if default != "":
            assert told[name][0] == f"`{default}`", name


def test_the_commands_exist_with_the_options_shown() -> None:
    shell = "".join(re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL))
    lines = [shlex.split(line) for line in shell.splitlines() if line.startswith("emadeploy ")]
    assert len(lines) == 3
    group = typer.main.get_command(app)
    for _, name, *arguments in lines:
        group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_the_launch_file_is_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    compile(code, "launch.py", "exec")
    assert '-m", "emadeploy.robotics.ros2_node' in code
