"""The command line: collects the commands, and turns every EmadeployError into one line and exit status 1."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from emadeploy import __version__
from emadeploy.contract.errors import EmadeployError

#: Command -> module under emadeploy.cli, in the order of the help. Its function ``command`` is the command; what is
#: heavy (torch, onnx, cv2, ...) is imported inside it.
COMMANDS = {
    "demo": "demo",
    "models": "models",
    "train": "train",
    "import": "import_",
    "eval": "eval",
    "export": "export",
    "run": "run",
    "compare": "compare",
    "sensitivity": "sensitivity",
    "inspect": "inspect",
    "doctor": "doctor",
}

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


for _name, _module in COMMANDS.items():
    app.command(_name)(importlib.import_module(f"emadeploy.cli.{_module}").command)


def main() -> None:
    """Run the command line of ``sys.argv`` and exit: 0 done, 1 an EmadeployError, 2 usage, 130 interrupted."""
    try:
        app()
    except EmadeployError as error:
        # One line, whatever the message holds, so that a log or a script can take it.
        print(f"emadeploy: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("emadeploy: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
