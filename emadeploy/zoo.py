"""The zoo: the models that emadeploy ships, as data. A folder ``models/<name>/`` is a model; its name is the name.

``model.yml`` holds the specification; ``weights/``, where it exists, a checkpoint. The folder lies in the wheel as
``emadeploy/_assets/models`` and, in a checkout or an editable install, beside the package.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import BackendMissing, SpecError, one_line
from emadeploy.contract.spec import ModelSpec, spec_path

#: The model that `emadeploy demo` shows, and that commands take where no source is given.
DEMO_MODEL = "emanet-rooms"


def assets(kind: str) -> Path:
    """Return the folder of the shipped data ``kind`` ('models' or 'calibration'); raises SpecError where it is gone."""
    package = Path(str(resources.files("emadeploy")))
    for folder in (package / "_assets" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise SpecError(f"the folder {kind}/ of emadeploy is missing beside {package}: install emadeploy again")


def names() -> tuple[str, ...]:
    """Return the names of all models of the zoo, sorted."""
    return tuple(sorted(path.parent.name for path in assets("models").glob("*/model.yml")))


def load_spec(source: str | Path) -> ModelSpec:
    """Return the specification of a zoo model by name, or of a ``model.yml`` by path.

    The name of the spec is the name of the folder that holds the file. Raises SpecError for an unknown name (the
    nearest one is only ever suggested) and for a file that does not make sense.
    """
    text = str(source)
    if text.endswith((".yml", ".yaml")):
        return _read(Path(text))
    if text not in names():
        near = difflib.get_close_matches(text, names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SpecError(f"model {text!r} is unknown{hint} Known: {', '.join(names())}, or the path of a model.yml")
    return _read(assets("models") / text / "model.yml")


def weights(name: str) -> Path | None:
    """Return the folder of the checkpoint shipped with the zoo model ``name``, or ``None`` where none is."""
    folder = assets("models") / name / "weights"
    return folder if (folder / "checkpoint.json").is_file() else None


def _read(path: Path) -> ModelSpec:
    try:
        import yaml
    except ImportError:
        raise BackendMissing.of("reading model.yml", "pyyaml", "export") from None
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path} does not exist; zoo models: {', '.join(names())}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise SpecError(f"{path} cannot be read: {reason}") from None
    with spec_path(str(path)):
        if not isinstance(data, dict):
            raise SpecError("not a mapping of fields")
        if "name" in data:
            raise SpecError("field 'name' is not allowed: the folder's name is the name")
        return ModelSpec.from_dict({"name": path.resolve().parent.name, **data})
