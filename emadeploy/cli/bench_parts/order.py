"""What is wanted of a run of the bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emadeploy.bench.stats import QUERIES
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.plain import to_plain

#: What `--torch` takes.
TORCH_MODES = ("eager", "compile")


@dataclass(frozen=True)
class BenchOrder:
    """What is wanted of a run of the bench.

    - ``artifacts``: folders; none: the engines of the zoo's demo model that this machine can run.
    - ``device``: 'auto', 'cpu', 'gpu', 'gpu:N', 'jetson'. ``threads``: of every engine; ``None``: a thread per core.
    - ``data``: DATA with truth to measure accuracy on. ``against``: the row that ratios are to; ``None``: the first.
    - ``published``, ``torch``, ``single_task``: rows beside those of the artifacts. ``layers``: times by layer.
    - ``single_task_from``: the checkpoint of the networks per task; ``None``: random weights, for their speed alone.
    - ``warm_up``: calls before any is timed; ``None``: until the times are steady.
    - ``percentile``: 50, 90 or 99, which asks for so many calls as it needs; ``None``: 90, and 50 without artifacts.
    - ``min_time_s``: seconds that each engine runs at least; ratios get up to 20 times that to settle.
    """

    artifacts: Sequence[Path] = ()
    device: str = "auto"
    threads: int | None = None
    data: str | None = None
    against: str | None = None
    published: bool = False
    torch: Sequence[str] = ()
    single_task: bool = False
    single_task_from: str | None = None
    layers: bool = False
    warm_up: int | None = None
    percentile: int | None = None
    min_time_s: float = 3.0

    def __post_init__(self) -> None:
        if self.single_task_from is not None and not self.single_task:
            raise SpecError(f"--single-task-from {self.single_task_from} goes with --single-task")
        unknown = [mode for mode in self.torch if mode not in TORCH_MODES]
        if unknown:
            raise SpecError(f"--torch {unknown[0]!r} is unknown; known: {', '.join(TORCH_MODES)}")
        if self.percentile is not None and self.percentile not in QUERIES:
            raise SpecError(f"--percentile {self.percentile} is unknown; known: {', '.join(map(str, QUERIES))}")

    def check_estimate(self) -> None:
        """Raise SpecError where something is asked for that only a measurement tells: ``device`` is not here."""
        asked = {
            "--data": self.data is not None,
            "--against": self.against is not None,
            "--published": self.published,
            "--torch": bool(self.torch),
            "--single-task": self.single_task,
            "--layers": self.layers,
        }
        flags = [flag for flag, given in asked.items() if given]
        if flags:
            raise SpecError(
                f"--device {self.device} is not this machine: nothing is measured, and {', '.join(flags)} cannot be "
                "had: leave that out, or measure on it with --host"
            )

    def to_dict(self) -> Mapping[str, Any]:
        """Return plain data for the settings of a report."""
        return {**to_plain(self), "artifacts": [str(path) for path in self.artifacts]}


def check_writable(flag: str, path: Path | None) -> None:
    """Raise DataError where the file that ``flag`` names has no folder to be written to: before minutes of work."""
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"{path.parent} is not a folder; {flag} needs one that exists")
