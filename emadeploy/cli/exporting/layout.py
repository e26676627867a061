"""How an artifact is laid out: as itself, or as models of a Triton repository.

Laying out an artifact that is there needs none of what an export needs: it works on the device that compiled it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from emadeploy.build.folder import scratch
from emadeploy.build.triton_layout import check_engine, write_repository
from emadeploy.contract.errors import BuildError, SpecError
from emadeploy.contract.manifest import MANIFEST_NAME, TARGETS, parse_target
from emadeploy.contract.plain import one_of

LAYOUTS = ("artifact", "triton")
REPOSITORY = Path("model_repository")
#: Parameters of `emadeploy export` that an artifact may be laid out with.
_WITH_ARTIFACT = {"source", "output", "layout", "instances"}


def check(layout: str, target: str, instances: int | None) -> None:
    """Raise SpecError for flags that do not go together, BuildError for a target that this machine cannot lay out."""
    one_of("--layout", layout, LAYOUTS)
    if layout == "artifact":
        if instances is not None:
            raise SpecError(f"--instances {instances}: it goes with --layout triton")
        return
    engine = TARGETS[parse_target(target)][0]
    check_engine(engine)
    if engine == "tensorrt":
        raise BuildError(
            f"target {target!r}: Triton takes engines that TensorRT compiled for its GPU: export without --layout, "
            "`emadeploy build ARTIFACT` on that machine, then `emadeploy export ARTIFACT --layout triton` there"
        )


def is_artifact(source: str | None) -> bool:
    """Whether ``source`` is the folder of an artifact."""
    return source is not None and (Path(source) / MANIFEST_NAME).is_file()


def lay_out(artifact: Path, output: Path | None, instances: int | None, given: Iterable[str]) -> None:
    """Write the artifact into the Triton repository ``output``.

    ``given`` are the parameters that people gave; raises SpecError where they are more than an artifact takes.
    """
    others = [f"--{name.replace('_', '-')}" for name in given if name not in _WITH_ARTIFACT]
    if others:
        raise SpecError(f"{', '.join(others)}: {artifact} is an artifact, and laid out as it is")
    _write(artifact, output or REPOSITORY, instances)


def export_into(output: Path | None, instances: int | None, make: Callable[[Path], Path]) -> None:
    """Write the artifact that ``make`` makes, at a place that it is given, into the Triton repository ``output``."""
    repository = output or REPOSITORY
    with scratch(repository) as folder:
        _write(make(folder / "artifact"), repository, instances)


def _write(artifact: Path, repository: Path, instances: int | None) -> None:
    names = write_repository(artifact, repository, instances=1 if instances is None else instances)
    print(f"wrote {', '.join(names)}: tritonserver --model-repository={repository.absolute()}")
