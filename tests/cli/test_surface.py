"""The surface of the command line: as the golden file says, documented, and with the exit statuses it promises."""

import os
import signal
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
    summary = app_module.command_of(name).__doc__
    assert summary, f"{name} has no docstring, so no help"
    done = CliRunner().invoke(
        app, [*name.split(), "--help"], terminal_width=200, env={"COLUMNS": "200", "NO_COLOR": "1"}
    )
    assert done.exit_code == 0
    assert " ".join(summary.split())[:40] in " ".join(done.output.split())
    for names, line in surface.declarations(name):
        assert line.endswith("[hidden]") or all(option in done.output for option in names), line


def test_every_command_is_in_the_help():
    done = CliRunner().invoke(app, ["--help"], terminal_width=200)
    assert done.exit_code == 0
    assert all(f"  {name.split()[0]} " in done.output for name in COMMANDS)


@pytest.mark.parametrize("group", app_module.GROUPS)
def test_a_group_helps_with_its_commands(group):
    for arguments in ([group], [group, "--help"]):
        done = CliRunner().invoke(app, arguments, terminal_width=200)
        assert app_module.GROUPS[group] in done.output
        own = [name.split()[1] for name in COMMANDS if name.startswith(f"{group} ")]
        assert own
        assert all(f"  {name} " in done.output for name in own)


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], *([*name.split(), "--no-such-option"] for name in COMMANDS)]
)
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


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_command_in_one_line_once_it_has_cleaned_up(monkeypatch, capsys, number, status, word):
    cleaned = []

    def interrupted() -> None:
        try:
            signal.raise_signal(number)
            raise AssertionError("went on")
        finally:
            signal.raise_signal(number)  # a second one does not end the cleaning up
            cleaned.append(number)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(app_module, "app", interrupted)
    with pytest.raises(SystemExit) as stopped:
        app_module.main()
    assert (stopped.value.code, cleaned) == (status, [number])
    assert capsys.readouterr().err == f"emadeploy: {word}\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the test's own
def test_a_worker_that_was_forked_ends_on_the_spot(monkeypatch):
    ended = []

    def fork() -> None:
        worker = os.fork()
        if not worker:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))

    monkeypatch.setattr(app_module, "app", fork)
    app_module.main()
    assert ended == [-signal.SIGTERM]
