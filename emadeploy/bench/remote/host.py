"""Another machine, reached by the system's ``ssh`` with its keys and its configuration. No password is asked for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from emadeploy.contract.errors import BackendMissing, DeviceError, EmadeployError, SpecError

#: What ssh exits with where it fails itself; the scripts that are run there never do.
SSH_FAILED = 255
#: Seconds to connect; and, of a connection that has gone silent, between two signs of life and how many may be missed.
_CONNECT_S, _ALIVE_S, _MISSED = 15, 15, 4
#: ``USER@`` may be missing; a name must not begin with '-', which ssh would take for an option.
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_][\w.-]*))(?::(?P<port>\d{1,5}))?"
)
_UNREACHABLE = (
    "Could not resolve hostname",
    "Connection refused",
    "Connection timed out",
    "Operation timed out",
    "No route to host",
    "Network is unreachable",
)


class NoConnectionError(DeviceError):
    """The host cannot be reached, or not any more."""


@dataclass(frozen=True)
class Host:
    """A machine as ssh knows it: ``address`` as in ``[USER@]NAME``, an alias of ssh's configuration among them."""

    address: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host:
        """Return the host of ``[USER@]NAME[:PORT]``, IPv6 in brackets; raises SpecError for anything else."""
        found = _HOST.fullmatch(text)
        if found is None or not 0 < int(found["port"] or 22) < 65536:
            raise SpecError(f"--host {text!r} is not [USER@]NAME[:PORT], such as user@jetson or user@10.0.0.7:2222")
        user = f"{found['user']}@" if found["user"] else ""
        return cls(user + (found["v6"] or found["name"]), int(found["port"]) if found["port"] else None)

    def __str__(self) -> str:
        if self.port is None:
            return self.address
        user, at, name = self.address.rpartition("@")
        return f"{user}{at}[{name}]:{self.port}" if ":" in name else f"{self.address}:{self.port}"

    def ssh(self) -> list[str]:
        """Return the ssh command up to the address, for rsync as well."""
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": _CONNECT_S,
            "ServerAliveInterval": _ALIVE_S,
            "ServerAliveCountMax": _MISSED,
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-T", *options, *(["-p", str(self.port)] if self.port is not None else [])]

    def by_hand(self) -> str:
        """Return the line that a person types to get there."""
        return shlex.join(["ssh", *(["-p", str(self.port)] if self.port is not None else []), self.address])

    def command(self, script: str, *arguments: str) -> list[str]:
        """Return the argv that runs the sh ``script`` there, with ``arguments`` as its $1, $2 ..."""
        # ssh glues its words together for the login shell there: they are quoted once for that shell.
        return [*self.ssh(), "--", self.address, shlex.join(["exec", "sh", "-c", script, "emadeploy", *arguments])]

    def run(self, script: str, *arguments: str, given: str = "") -> str:
        """Run the sh ``script`` there with ``given`` as its stdin; return its stdout.

        Raises BackendMissing without ssh, DeviceError where the host cannot be reached, refuses, or the script fails.
        """
        done = run_here(self.command(script, *arguments), given)
        if done.returncode:
            raise self.failed(done.returncode, done.stderr)
        return done.stdout

    def failed(self, status: int, stderr: str) -> EmadeployError:
        """Return the error for an ssh, or an rsync over it, that ended with ``status`` and said ``stderr``."""
        said = last_line(stderr)
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
            return DeviceError(
                f"the host key of {self} is another one than before: ssh refuses. Where the machine was set up anew, "
                f"remove the old key with ssh-keygen -R, then connect once by hand: {self.by_hand()}"
            )
        if "Host key verification failed" in stderr:
            return DeviceError(
                f"the host key of {self} is not known here, and ssh does not take it unasked: connect once by hand and "
                f"compare its fingerprint: {self.by_hand()}"
            )
        if "Permission denied (" in stderr:
            return DeviceError(
                f"{self} refuses to let you in ({said}): it needs a key, passwords are not asked for. Put yours there "
                f"with ssh-copy-id; then this must work: {self.by_hand()} true"
            )
        reason = next((line for line in stderr.splitlines() if any(word in line for word in _UNREACHABLE)), None)
        if reason is not None:
            return NoConnectionError(
                f"{self} cannot be reached ({reason.strip()}): is it on, is its name right, does its sshd run?"
            )
        if status == SSH_FAILED:
            return NoConnectionError(f"the connection to {self} was lost: {said or 'ssh does not say why'}")
        return DeviceError(f"{self}: {said or f'a command there ended with status {status}'}")


def run_here(argv: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of this machine that talks to the other; raises BackendMissing where it is not installed."""
    try:
        return subprocess.run(
            argv, input=given, capture_output=True, text=True, errors="replace", check=False, env=plain_language()
        )
    except FileNotFoundError:
        raise missing_here(argv[0]) from None


def missing_here(program: str) -> BackendMissing:
    """Return the error for a ``program`` that is not installed here."""
    package = {"ssh": "openssh-client"}.get(program, program)
    return BackendMissing(f"--host needs {program}, which is not installed here: sudo apt install {package}")


def plain_language() -> dict[str, str]:
    """Return an environment in which programs say in English what went wrong."""
    return {**os.environ, "LC_ALL": "C"}


def last_line(text: str) -> str:
    """Return the last line of ``text`` that says something, '' for none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
