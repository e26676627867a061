"""A run of the bench on a host: it outlives the connection, and the next call with the same arguments finds it.

Its folder there holds ``lock``, held as long as it runs; ``pid``; ``log``, what it says; ``report.json``; and at its
end ``status``. A report is fetched once: then the folder goes, and the same call measures anew.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import posixpath
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from emadeploy import __version__
from emadeploy.bench.remote.greeting import There
from emadeploy.bench.remote.host import Host, NoConnectionError, last_line, missing_here, plain_language
from emadeploy.contract.errors import DeviceError

Report = Callable[[str], None]

#: Seconds before each attempt to get back to a host whose connection was lost; a line from there starts them again.
_RETRIES_S = (2.0, 5.0, 10.0, 20.0, 30.0)
#: Minutes that a report which nobody fetched is worth anything.
_KEPT_MIN = 24 * 60
REPORT = "report.json"
#: Set for a run that a desk waits for: the table is printed there, and not here as well.
FROM_DESK = "EMADEPLOY_BENCH_FROM_DESK"

# The lock is open in the run and in nothing else that lasts: the system gives it back however the run ends.
_START = f"""
mkdir -p "$1" && cd "$1" || exit 1
shift
exec 9>lock
if ! flock -n 9; then echo "running $(cat pid)"; exit; fi
if [ -n "$(find status -mmin -{_KEPT_MIN} 2>/dev/null)" ]; then echo "finished $(cat pid)"; exit; fi
rm -f status {REPORT}
setsid sh -c 'echo $$ >pid; "$@"; echo $? >status.part; mv status.part status' sh "$@" >log 2>&1 </dev/null &
echo "started $!"
"""
# Whether it is over is asked before the log is read: what it says at its end is not missed.
_FOLLOW = """
cd "$1" || exit 1
sent=$2
while :; do
    over=
    if flock -n lock true; then over=yes; fi
    size=$(wc -c <log)
    if [ "$size" -gt "$sent" ]; then
        tail -c "+$((sent + 1))" log | head -c "$((size - sent))"
        sent=$size
    fi
    if [ -n "$over" ]; then break; fi
    sleep 0.5
done
"""
_FETCH = f'cd "$1" || exit 1; cat status 2>/dev/null || echo none; cat {REPORT} 2>/dev/null; true'
_FORGET = 'rm -r "$1"'


class Job:
    """The run of ``emadeploy ARGUMENTS --json ...`` on ``host``: the same job where the arguments are the same."""

    def __init__(self, host: Host, there: There, arguments: Sequence[str]) -> None:
        key = hashlib.sha256(json.dumps([__version__, *arguments]).encode()).hexdigest()[:16]
        self._host = host
        self._folder = posixpath.join(there.root, "runs", key)
        self._command = [
            "env",
            f"{FROM_DESK}=1",
            there.emadeploy,
            *arguments,
            "--json",
            posixpath.join(self._folder, REPORT),
        ]
        self._process: str = ""
        self._read = 0
        self._last = ""

    def start(self, report: Report = print) -> None:
        """Start it, unless it runs, or has finished within a day and nobody fetched its report. Raises as Host.run."""
        said = last_line(self._host.run(_START, self._folder, *self._command))
        state, _, self._process = said.partition(" ")
        if state == "running":
            report(f"this run goes on on {self._host} already: waiting for it")
        elif state == "finished":
            report(f"this run has finished on {self._host}, and its report was not fetched: here it is")
        elif state != "started":
            raise DeviceError(f"{self._host} answered {said!r} to the start of the run, expected 'started'")

    def follow(self, report: Report = print) -> None:
        """Give ``report`` every line that it says, until it ends; where the connection is lost, come back.

        Raises DeviceError where there is no coming back; the run goes on all the same.
        """
        attempts = list(_RETRIES_S)
        while True:
            before = self._read
            try:
                self._follow(report)
                return
            except NoConnectionError as error:
                if self._read > before:
                    attempts = list(_RETRIES_S)
                if not attempts:
                    raise NoConnectionError(f"{error}. {self.goes_on()}") from None
                report(f"{error}; trying again")
                time.sleep(attempts.pop(0))

    def fetch(self) -> Any:
        """Return the json of its report, as it is. Raises DeviceError where it ended without one."""
        status, _, text = self._host.run(_FETCH, self._folder).partition("\n")
        if text:
            try:
                return json.loads(text)
            except ValueError as error:
                self.forget()
                raise DeviceError(f"{self._host}: the report of the run is not json ({error}): run it again") from None
        self.forget()
        if status.strip() == "none":
            raise DeviceError(
                f"the run on {self._host} was ended from outside, without a report (a restart, a kill, no memory); "
                f"the last that it said: {self._last or 'nothing'}"
            )
        raise DeviceError(f"emadeploy on {self._host} ended with status {status.strip()}: {self._last or 'no word'}")

    def forget(self) -> None:
        """Remove its folder there: the next call with these arguments measures anew."""
        self._host.run(_FORGET, self._folder)

    def goes_on(self) -> str:
        """Return what to do where nobody waits any more, in words."""
        ending = shlex.join([*shlex.split(self._host.by_hand()), f"kill -- -{self._process}"])
        return f"The run on {self._host} goes on: the same command waits for it again; this ends it: {ending}"

    def _follow(self, report: Report) -> None:
        argv = self._host.command(_FOLLOW, self._folder, str(self._read))
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        unread = ""
        with tempfile.TemporaryFile("w+", errors="replace") as stderr:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=plain_language()
                )
            except FileNotFoundError:
                raise missing_here(argv[0]) from None
            with process:
                assert process.stdout is not None
                while chunk := process.stdout.read1(65536):  # type: ignore[attr-defined]
                    self._read += len(chunk)
                    *lines, unread = (unread + decode(chunk)).split("\n")
                    for line in lines:
                        self._say(line, report)
            self._say(unread, report)
            if process.returncode:
                stderr.seek(0)
                raise self._host.failed(process.returncode, stderr.read())

    def _say(self, line: str, report: Report) -> None:
        if line.strip():
            self._last = line.strip()
            report(line.rstrip())
