"""The surface of the command line: as the golden file says, documented, and with the exit statuses it promises."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
import surface

from emadeploy.cli import app as app_module
from emadeploy.cli.app import COMMANDS, app

HOW = "run `python tools/update_cli_surface.py`, and look at the diff as a user would"


def test_surface_is_the_golden_one():
    assert surface.surface() == surface.GOLDEN.read_text(encoding="utf-8"), HOW


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented_and_helps(name):
    summary = surface.command_of(name).__doc__
    assert summary, f"{name} has no docstring, so no help"
    done = CliRunner().invoke(app, [name, "--help"], terminal_width=200, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert " ".join(summary.split())[:40] in " ".join(done.output.split())
    for names, line in surface.declarations(name):
        assert line.endswith("[hidden]") or all(option in done.output for option in names), line


def test_every_command_is_in_the_help():
    done = CliRunner().invoke(app, ["--help"], terminal_width=200)
    assert done.exit_code == 0
    assert all(f"  {name} " in done.output for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["no-such-command"], *([name, "--no-such-option"] for name in COMMANDS)])
def test_usage_exits_2(arguments):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "no-such" in done.output


def test_no_arguments_show_the_help():
    assert "Usage: emadeploy" in CliRunner().invoke(app, [], prog_name="emadeploy").output


def test_installed_command_says_an_error_in_one_line(emadeploy_command):
    argv = [*emadeploy_command, "models", "no-such-model"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("emadeploy: SpecError: model 'no-such-model' is unknown")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_installed_command_knows_its_usage(emadeploy_command):
    done = subprocess.run([*emadeploy_command, "models", "--no-such"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_message_of_several_lines_is_printed_in_one(monkeypatch, capsys):
    def fail() -> None:
        raise app_module.EmadeployError("first\n  second\nthird")

    monkeypatch.setattr(app_module, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        app_module.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "emadeploy: EmadeployError: first second third\n"


def test_an_interrupt_exits_130_without_a_traceback(monkeypatch, capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app_module, "app", interrupt)
    with pytest.raises(SystemExit) as stopped:
        app_module.main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "emadeploy: interrupted\n"
