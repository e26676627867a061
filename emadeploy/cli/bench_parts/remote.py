"""`emadeploy bench --host`: artifacts go there, the bench runs there, its report comes back and is checked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emadeploy.bench.remote.greeting import greet
from emadeploy.bench.remote.host import Host
from emadeploy.bench.remote.job import Job
from emadeploy.bench.remote.sending import send
from emadeploy.bench.report import report_of
from emadeploy.bench.rows import Report
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.contract.errors import DataError, DeviceError, SpecError
from emadeploy.contract.manifest import Manifest

Say = Callable[[str], None]


def measure_there(text: str, order: BenchOrder, say: Say | None = None) -> Report:
    """Measure what is ordered on the host ``text``, [USER@]NAME[:PORT]; return its report, with the host in it.

    Rows name the artifacts as they lie here. Lines of the run there go to ``say``, by default stderr. A run that goes
    on there, or whose report was not fetched, is found again where host, artifacts and order are the same.

    Raises SpecError for a host that is no host, ArtifactError for an artifact that is not intact here, DataError where
    the disk there is full or the report makes no sense, BackendMissing where a program is missing here or there,
    DeviceError where the host cannot be reached, has another emadeploy, or the run there failed.
    """
    say = say or _to_stderr
    host = Host.parse(text)
    for artifact in order.artifacts:  # before anything is asked of the host
        Manifest.read(artifact).verify_files(artifact)
    there = greet(host)
    sent = {send(host, there, artifact, say): artifact for artifact in order.artifacts}
    if len(sent) < len(order.artifacts):
        raise SpecError(f"an artifact is given twice: {', '.join(map(str, order.artifacts))}")
    job = Job(host, there, ["bench", *sent, *flags(order)])
    job.start(say)
    try:
        job.follow(lambda line: say(f"{host}: {line}"))
    except SystemExit:  # Ctrl-C among others: `cli.app`
        say(job.goes_on())
        raise
    data = job.fetch()
    try:
        report = report_of(data)
    except SpecError as error:
        raise DataError(f"the report that came from {host} makes no sense: {error}") from None
    finally:
        _forget(job, say)
    rows = [replace(row, artifact=str(sent.get(row.artifact or "", row.artifact or "")) or None) for row in report.rows]
    return Report({**report.machine, "host": str(host)}, {**report.settings, "host": str(host)}, rows)


def _forget(job: Job, say: Say) -> None:
    # What has come back is not lost because the host is gone by now.
    try:
        job.forget()
    except DeviceError as error:
        say(f"the run's folder there could not be removed: the same command will show this report again ({error})")


def flags(order: BenchOrder) -> list[str]:
    """Return the flags of `emadeploy bench` that ask for ``order``, without its artifacts."""
    default = BenchOrder()
    values: dict[str, Any] = {
        "--device": order.device,
        "--threads": order.threads,
        "--data": order.data,
        "--against": order.against,
        "--single-task-from": order.single_task_from,
        "--warmup": order.warm_up,
        "--percentile": order.percentile,
        "--min-time": order.min_time_s if order.min_time_s != default.min_time_s else None,
    }
    words = [word for flag, value in values.items() if value is not None for word in (flag, str(value))]
    words += [word for mode in order.torch for word in ("--torch", mode)]
    switches = {"--published": order.published, "--single-task": order.single_task, "--layers": order.layers}
    return words + [flag for flag, wanted in switches.items() if wanted]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
