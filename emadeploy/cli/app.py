"""The command line: collects the commands, and turns every EmadeployError into one line and exit status 1."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from emadeploy import __version__
from emadeploy.contract.errors import EmadeployError, one_line

#: Command -> module under emadeploy.cli, in the order of the help. Its function ``command`` is the command, or the one
#: named after the colon; what is heavy (torch, onnx, cv2, ...) is imported inside it.
COMMANDS = {
    "demo": "demo",
    "models": "models",
    "train": "train",
    "import": "import_",
    "eval": "eval",
    "export": "export",
    "build": "build",
    "run": "run",
    "bench": "bench",
    "serve": "serve",
    "compare": "compare",
    "sensitivity": "sensitivity",
    "inspect": "inspect",
    "data convert": "data:convert",
    "data check": "data:check",
    "doctor": "doctor",
}
#: Help of the commands that are groups of commands.
GROUPS = {"data": "Convert raw data sets, and look at any data."}

app = typer.Typer(
    name="emadeploy",
    help="Train, export, quantise and run EMA-Net on edge devices.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"emadeploy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def command_of(name: str) -> Callable[..., None]:
    """Return the function behind a command of COMMANDS."""
    module, _, function = COMMANDS[name].partition(":")
    command: Callable[..., None] = getattr(importlib.import_module(f"emadeploy.cli.{module}"), function or "command")
    return command


def _register() -> None:
    groups: dict[str, typer.Typer] = {}
    for name in COMMANDS:
        group, _, own = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=GROUPS[group], no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group)
        (groups[group] if group else app).command(own)(command_of(name))


_register()


_SIGNALS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(SystemExit):
    """A signal asked the process to end. It passes through all cleaning up, and says in a word what happened.

    It is no KeyboardInterrupt: typer keeps those to itself, and Lightning exits with the status of an error.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return _SIGNALS[self.number]


@contextmanager
def _stopping() -> Iterator[None]:
    """Raise Stopped in the block where a signal asks for the end, which SIGTERM would otherwise be on the spot."""
    process = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:  # a worker, forked: not for it to clean up
            signal.signal(number, former[number])
            signal.raise_signal(number)
            return
        # Shells and `timeout` send more than one: the second must not stop the cleaning up.
        signal.signal(number, signal.SIG_IGN)
        raise Stopped(number)

    former = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def main() -> None:
    """Run the command line of ``sys.argv`` and exit.

    Status: 0 done, 1 an EmadeployError, 2 usage, 130 interrupted (SIGINT, Ctrl-C), 143 terminated (SIGTERM).
    """
    try:
        with _stopping():
            app()
    except EmadeployError as error:
        print(f"emadeploy: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print(f"emadeploy: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)


if __name__ == "__main__":
    main()
