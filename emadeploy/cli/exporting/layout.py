"""How an artifact is laid out: as itself, or as models of a Triton repository.

Laying out an artifact that is there needs none of what an export needs: it works on the device that compiled it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from emadeploy.build.folder import scratch
from emadeploy.build.triton_layout import check_batches, check_engine, write_repository
from emadeploy.contract.errors import BuildError, SpecError
from emadeploy.contract.manifest import MANIFEST_NAME, TARGETS, parse_target
from emadeploy.contract.plain import one_of

LAYOUTS = ("artifact", "triton")
REPOSITORY = Path("model_repository")
#: Parameters of `emadeploy export` that an artifact may be laid out with.
_WITH_ARTIFACT = {"source", "output", "layout", "instances", "max_batch"}


@dataclass(frozen=True)
class Serving:
    """How Triton runs a network: ``instances`` of it at a time, and batches of up to ``max_batch`` frames, or none."""

    instances: int | None = None
    max_batch: int | None = None

    def given(self) -> list[str]:
        """Return the flags that were given."""
        flags = {"--instances": self.instances, "--max-batch": self.max_batch}
        return [f"{flag} {value}" for flag, value in flags.items() if value is not None]


def check(layout: str, target: str, serving: Serving) -> None:
    """Raise SpecError for flags that do not go together, BuildError for a target that this machine cannot lay out."""
    one_of("--layout", layout, LAYOUTS)
    if layout == "artifact":
        if given := serving.given():
            raise SpecError(f"{', '.join(given)}: for --layout triton alone")
        return
    engine = TARGETS[parse_target(target)][0]
    check_engine(engine)
    if serving.max_batch is not None:
        check_batches(engine)
    if engine == "tensorrt":
        raise BuildError(
            f"target {target!r}: Triton takes engines that TensorRT compiled for its GPU: export without --layout, "
            "`emadeploy build ARTIFACT` on that machine, then `emadeploy export ARTIFACT --layout triton` there"
        )


def is_artifact(source: str | None) -> bool:
    """Whether ``source`` is the folder of an artifact."""
    return source is not None and (Path(source) / MANIFEST_NAME).is_file()


def lay_out(artifact: Path, output: Path | None, serving: Serving, given: Iterable[str]) -> None:
    """Write the artifact into the Triton repository ``output``.

    ``given`` are the parameters that people gave; raises SpecError where they are more than an artifact takes.
    """
    others = [f"--{name.replace('_', '-')}" for name in given if name not in _WITH_ARTIFACT]
    if others:
        raise SpecError(f"{', '.join(others)}: {artifact} is an artifact, and laid out as it is")
    _write(artifact, output or REPOSITORY, serving)


def export_into(output: Path | None, serving: Serving, make: Callable[[Path], Path]) -> None:
    """Write the artifact that ``make`` makes, at a place that it is given, into the Triton repository ``output``."""
    repository = output or REPOSITORY
    with scratch(repository) as folder:
        _write(make(folder / "artifact"), repository, serving)


def _write(artifact: Path, repository: Path, serving: Serving) -> None:
    instances = 1 if serving.instances is None else serving.instances
    names = write_repository(artifact, repository, instances=instances, max_batch=serving.max_batch)
    print(f"wrote {', '.join(names)}: tritonserver --model-repository={repository.absolute()}")
