"""Runs on a host outlive the connection, are found again and fetched once; here on a host that is pretended."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.bench.remote import job as job_module
from emadeploy.bench.remote.greeting import There
from emadeploy.bench.remote.host import Host, NoConnectionError
from emadeploy.bench.remote.job import FROM_DESK, Job
from emadeploy.contract.errors import DeviceError

#: In the place of emadeploy there: it counts its starts, waits for the file 'go', and writes its --json. It ends where
#: the test that it belongs to is over.
BENCH = f"""
folder=$(dirname "$0")
echo "start ${FROM_DESK} $*" >> "$folder/starts"
echo "measuring ä 1 of 2"
while [ ! -e "$folder/go" ]; do [ -e "$0" ] || exit 9; sleep 0.05; done
echo "measuring 2 of 2"
while [ $# -gt 1 ]; do shift; done
[ -e "$folder/no-report" ] || echo '{{"n": 1}}' > "$1"
[ ! -e "$folder/fails" ] || {{ echo "emadeploy: ArtifactError: it is broken" >&2; exit 1; }}
"""


@pytest.fixture
def bench(there) -> Callable[..., Job]:
    program = there.bin / "bench.sh"
    program.write_text("#!/bin/sh\n" + BENCH)
    program.chmod(0o755)

    def make(*arguments: str) -> Job:
        return Job(Host.parse(there.address), There(str(program), str(there.cache / "bench")), arguments)

    return make


def silent(_: str) -> None:
    pass


def starts(there) -> list[str]:
    return (there.bin / "starts").read_text().splitlines()


def test_a_run_gives_its_lines_and_its_report_once(there, bench: Callable[..., Job]) -> None:
    (there.bin / "go").touch()
    said: list[str] = []
    job = bench("bench", "a folder/x", "--data", "it's $HOME;")
    job.start(said.append)
    job.follow(said.append)
    assert said == ["measuring ä 1 of 2", "measuring 2 of 2"]
    assert job.fetch() == {"n": 1}
    assert starts(there)[0].startswith("start 1 bench a folder/x --data it's $HOME; --json ")
    job.forget()
    job.start(silent)
    job.follow(silent)
    assert len(starts(there)) == 2


def test_a_run_that_goes_on_is_joined_and_not_started_again(there, bench: Callable[..., Job]) -> None:
    bench("bench").start(silent)
    said: list[str] = []
    again = bench("bench")
    again.start(said.append)
    assert "goes on" in said[0]
    (there.bin / "go").touch()
    again.follow(said.append)
    assert said[1:] == ["measuring ä 1 of 2", "measuring 2 of 2"]
    assert again.fetch() == {"n": 1}
    assert len(starts(there)) == 1


def test_a_report_that_was_not_fetched_is_found(there, bench: Callable[..., Job]) -> None:
    (there.bin / "go").touch()
    first = bench("bench")
    first.start(silent)
    first.follow(silent)
    said: list[str] = []
    second = bench("bench")
    second.start(said.append)
    assert "was not fetched" in said[0]
    assert second.fetch() == {"n": 1}
    assert len(starts(there)) == 1
    third = bench("bench", "--threads", "1")  # another order is another run
    third.start(silent)
    third.follow(silent)
    assert len(starts(there)) == 2


def test_a_report_of_last_week_is_not_taken_for_a_new_one(there, bench: Callable[..., Job]) -> None:
    (there.bin / "go").touch()
    first = bench("bench")
    first.start(silent)
    first.follow(silent)
    [status] = there.cache.rglob("status")
    week = time.time() - 7 * 24 * 3600
    os.utime(status, (week, week))
    second = bench("bench")
    second.start(silent)
    second.follow(silent)
    assert len(starts(there)) == 2


def test_a_run_that_fails_is_told_with_its_last_line(there, bench: Callable[..., Job]) -> None:
    for name in ("go", "fails", "no-report"):
        (there.bin / name).touch()
    job = bench("bench")
    job.start(silent)
    job.follow(silent)
    with pytest.raises(DeviceError, match=r"ended with status 1: emadeploy: ArtifactError: it is broken"):
        job.fetch()
    assert not list(there.cache.rglob("status"))  # the same call tries again


def test_a_run_whose_rows_fail_has_a_report(there, bench: Callable[..., Job]) -> None:
    for name in ("go", "fails"):
        (there.bin / name).touch()
    job = bench("bench")
    job.start(silent)
    job.follow(silent)
    assert job.fetch() == {"n": 1}


def test_a_run_that_is_killed_there_is_told(there, bench: Callable[..., Job]) -> None:
    job = bench("bench")
    job.start(silent)
    while not any(log.read_text() for log in there.cache.rglob("log")):
        time.sleep(0.02)
    [pid] = there.cache.rglob("pid")
    assert f"kill -- -{pid.read_text().strip()}" in job.goes_on()
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    job.follow(silent)
    with pytest.raises(DeviceError, match=r"ended from outside.*measuring ä 1 of 2"):
        job.fetch()


def test_a_lost_connection_is_taken_up_where_it_ended(there, bench: Callable[..., Job], monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(job_module, "_RETRIES_S", (0.0, 0.0))
    said: list[str] = []
    job = bench("bench")
    job.start(silent)
    # An ssh that is cut off after the first line, once.
    real = there.ssh.rename(there.ssh.with_name("real"))
    once = f'touch {tmp_path}/cut; (sleep 1; touch {there.bin}/go) & {real} "$@" | head -n 1; exit 255'
    there.ssh.write_text(f'#!/bin/sh\nif [ ! -e {tmp_path}/cut ]; then {once}; fi\nexec {real} "$@"\n')
    there.ssh.chmod(0o755)
    job.follow(said.append)
    assert [line for line in said if "lost" not in line] == ["measuring ä 1 of 2", "measuring 2 of 2"]
    assert any("trying again" in line for line in said)
    assert job.fetch() == {"n": 1}


def test_a_connection_that_does_not_come_back_says_how_to_go_on(
    there, bench: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "_RETRIES_S", (0.0, 0.0))
    job = bench("bench")
    job.start(silent)
    real = there.ssh.read_text()
    there.ssh.write_text("#!/bin/sh\necho 'Connection refused' >&2; exit 255\n")
    said: list[str] = []
    with pytest.raises(NoConnectionError, match=r"goes on: the same command waits for it again; this ends it: ssh"):
        job.follow(said.append)
    assert len(said) == 2
    there.ssh.write_text(real)
    (there.bin / "go").touch()
    job.follow(said.append)
    assert job.fetch() == {"n": 1}


def test_two_calls_at_once_start_one_run(there, bench: Callable[..., Job]) -> None:
    jobs = [bench("bench") for _ in range(3)]
    threads = [threading.Thread(target=job.start, args=(silent,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (there.bin / "go").touch()
    jobs[0].follow(silent)
    assert len(starts(there)) == 1


def test_a_report_that_is_no_json_is_refused(programs: Callable[..., Path]) -> None:
    programs(ssh="echo 0; echo '{'")
    with pytest.raises(DeviceError, match="is not json"):
        Job(Host("jetson"), There("e", "/r"), ["bench"]).fetch()


def test_a_start_that_answers_nonsense_is_refused(programs: Callable[..., Path]) -> None:
    programs(ssh="echo hello")
    with pytest.raises(DeviceError, match="answered 'hello'"):
        Job(Host("jetson"), There("e", "/r"), ["bench"]).start(silent)
