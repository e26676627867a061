"""`emadeploy models`: the zoo."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from emadeploy.contract.spec import ModelSpec


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one model in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print json.")] = False,
) -> None:
    """List the models of the zoo, or show one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from emadeploy import zoo

    specs = [zoo.load_spec(n) for n in (zoo.names() if name is None else (name,))]
    if as_json:
        print(json.dumps([{**spec.to_dict(), "weights": zoo.weights(spec.name) is not None} for spec in specs]))
        return
    if name is not None:
        _show(specs[0], has_weights=zoo.weights(name) is not None)
        return
    table = Table("name", "tasks", "input", "weights", "what it is", box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for spec in specs:
        size = f"{spec.input.height}x{spec.input.width}"
        shipped = "shipped" if zoo.weights(spec.name) else "none"
        table.add_row(spec.name, ", ".join(spec.task_names), size, shipped, spec.description)
    Console().print(table)


def _show(spec: ModelSpec, *, has_weights: bool) -> None:
    def show(data: dict[str, Any], indent: str) -> None:
        for key, value in data.items():
            if isinstance(value, dict):
                print(f"{indent}{key}:")
                show(value, indent + "  ")
            elif key == "tasks":
                print(f"{indent}tasks:")
                for task in value:
                    print(f"{indent}  {_task_line(task)}")
            else:
                print(f"{indent}{key}: {value}")

    show(spec.to_dict(), "")
    print(f"weights: {'shipped' if has_weights else 'none; train or import them'}")


def _task_line(task: dict[str, Any]) -> str:
    facts = [f"{task['channels']} channels"]
    facts += [f"{key} {task[key]}" for key in ("unit", "direction", "frame") if task[key]]
    classes = f": {', '.join(task['class_names'])}" if task["class_names"] else ""
    return f"{task['kind']}: {', '.join(facts)}{classes}"
