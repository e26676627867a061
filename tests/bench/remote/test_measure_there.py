"""`bench --host` put together, on a host that is pretended, with a script in the place of its emadeploy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy import __version__
from emadeploy.bench.remote.job import Job
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.bench_parts.remote import measure_there
from emadeploy.contract.errors import ArtifactError, DataError, DeviceError, SpecError

Make = Callable[..., Path]


def install(there, report: str, version: str = __version__) -> None:
    """Put an emadeploy there that answers ``report`` to every bench, with $2, its first artifact, in it."""
    program = there.bin / "emadeploy"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo emadeploy {version}; exit; fi\nfirst=$2\n'
        f'while [ $# -gt 1 ]; do shift; done\ncat >"$1" <<END\n{report}\nEND\n'
    )
    program.chmod(0o755)


REPORT = (
    '{"schema": 1, "machine": {"cpu": "Arm"}, "settings": {}, "rows": [{"name": "a", "target": "onnxruntime-fp32", '
    '"status": "ok", "size_mb": 1.0, "threads": 1, "artifact": "$first"}]}'
)


def test_the_report_names_the_host_and_what_lies_here(there, make_artifact: Make) -> None:
    install(there, REPORT)
    artifact = make_artifact()
    report = measure_there("user@jetson:22", BenchOrder(artifacts=(artifact,)), lambda _: None)
    assert report.machine == {"cpu": "Arm", "host": "user@jetson:22"}
    assert report.settings["host"] == "user@jetson:22"
    assert [row.artifact for row in report.rows] == [str(artifact)]


def test_a_report_that_makes_no_sense_is_refused_and_gone(there) -> None:
    install(there, '{"schema": 7, "rows": []}')
    with pytest.raises(DataError, match="the report that came from user@jetson makes no sense: schema 7"):
        measure_there("user@jetson", BenchOrder(), lambda _: None)
    assert not list((there.cache / "bench" / "runs").iterdir())


def test_another_version_is_refused_before_anything_is_copied(there, make_artifact: Make) -> None:
    install(there, REPORT, version="0.0.1")
    with pytest.raises(DeviceError, match=r"'emadeploy 0\.0\.1', here is"):
        measure_there("user@jetson", BenchOrder(artifacts=(make_artifact(),)))
    assert not there.cache.exists()


def test_ctrl_c_ends_the_wait_and_says_how_to_go_on(there, monkeypatch: pytest.MonkeyPatch) -> None:
    install(there, REPORT)
    monkeypatch.setattr(Job, "follow", lambda *_: (_ for _ in ()).throw(SystemExit(130)))
    said: list[str] = []
    with pytest.raises(SystemExit):
        measure_there("user@jetson", BenchOrder(), said.append)
    assert "goes on: the same command waits for it again; this ends it: ssh user@jetson 'kill -- -" in said[-1]


def test_a_report_is_not_lost_where_the_host_goes_away(there, monkeypatch: pytest.MonkeyPatch) -> None:
    install(there, REPORT)

    def gone(_: Job) -> None:
        raise DeviceError("the connection was lost")

    monkeypatch.setattr(Job, "forget", gone)
    said: list[str] = []
    assert len(measure_there("user@jetson", BenchOrder(), said.append).rows) == 1
    assert "will show this report again" in said[-1]


def test_an_artifact_that_is_given_twice_is_refused(there, make_artifact: Make) -> None:
    install(there, REPORT)
    artifact = make_artifact()
    with pytest.raises(SpecError, match="given twice"):
        measure_there("user@jetson", BenchOrder(artifacts=(artifact, artifact)), lambda _: None)


def test_what_is_no_host_or_no_artifact_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not"):
        measure_there("-oProxyCommand=x", BenchOrder())
    with pytest.raises(ArtifactError, match="does not exist"):
        measure_there("user@jetson", BenchOrder(artifacts=(tmp_path / "nowhere",)))
