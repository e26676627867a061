"""The surface of the command line as text: commands, arguments, options, types, defaults, help.

Read from the declarations rather than from printed help, whose form changes with the version of typer and the width
of the terminal. Compared by test_surface.py with surface.txt; written there by tools/update_cli_surface.py.
"""

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo

from emadeploy.cli.app import COMMANDS, command_of

GOLDEN = Path(__file__).with_name("surface.txt")


def declarations(name: str) -> Iterator[tuple[list[str], str]]:
    """Yield, for each parameter of a command, its names as typed and the line that describes it."""
    function = command_of(name)
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind, info = typing.get_args(hints[parameter.name])
        if isinstance(info, ArgumentInfo):
            names, shown = [], info.metavar or parameter.name.upper()
        else:
            # Inside Annotated, typer keeps the first name in the place of the default.
            first = [info.default] if isinstance(info.default, str) else []
            names = [*first, *(info.param_decls or ())] or [f"--{parameter.name.replace('_', '-')}"]
            value = "" if kind is bool else info.metavar or type_name(kind)
            shown = f"{', '.join(names)} {value}".rstrip()
        yield names, f"  {shown:<30} {describe(parameter.default, info)}".rstrip()


def type_name(kind: Any) -> str:
    """Return 'int' for `int | None`, 'list of Path' for `list[Path]`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return type_name(next(part for part in typing.get_args(kind) if part is not type(None)))
    inner = typing.get_args(kind)
    return f"list of {type_name(inner[0])}" if inner else kind.__name__


def describe(default: Any, info: Any) -> str:
    """Return the help of a parameter, and whether it is required or what it is otherwise."""
    words = [info.help or ""]
    if default is inspect.Parameter.empty:
        words.append("[required]")
    elif default is not None and default is not False:
        words.append(f"[default: {default}]")
    words += ["[hidden]"] if info.hidden else []
    limits = [f"{sign}{limit}" for sign, limit in ((">=", info.min), ("<=", info.max)) if limit is not None]
    words += [f"[{', '.join(limits)}]"] if limits else []
    return " ".join(word for word in words if word)


def surface() -> str:
    """Return the whole surface, in the order of the help."""
    texts = []
    for name in COMMANDS:
        summary = " ".join((command_of(name).__doc__ or "").split())
        texts.append("\n".join([f"emadeploy {name}", f"  {summary}", *(line for _, line in declarations(name))]))
    return "\n\n".join(texts) + "\n"
