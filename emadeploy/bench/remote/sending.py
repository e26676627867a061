"""Artifacts on their way to a host: by rsync, each once; what was interrupted goes on, and digests decide."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable
from pathlib import Path

from emadeploy.bench.remote.greeting import There
from emadeploy.bench.remote.host import SSH_FAILED, Host, NoConnectionError, run_here
from emadeploy.contract.errors import DataError, DeviceError
from emadeploy.contract.manifest import MANIFEST_NAME, Manifest, file_digest

Report = Callable[[str], None]

_CHECK = 'cd "$1" 2>/dev/null && sha256sum --check --strict --status - && echo intact; true'
_FOLDER = 'mkdir -p "$1"'
#: rsync ends with these where the connection did: protocol, I/O of the socket, a signal, timeouts, ssh itself.
_LOST = (10, 12, 20, 30, 35, 255)


def send(host: Host, there: There, artifact: Path, report: Report = print) -> str:
    """Copy the folder ``artifact`` to ``host``, unless it is there already; return its path there.

    Raises ArtifactError where it is not intact here, DataError where the disk there is full, DeviceError where the
    connection is lost or what arrives differs, BackendMissing without rsync.
    """
    manifest = Manifest.read(artifact)
    manifest.verify_files(artifact)
    digests = {name: record.sha256 for name, record in manifest.files.items()}
    digests[MANIFEST_NAME] = file_digest(artifact / MANIFEST_NAME)
    sums = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    # The manifest holds the digest of every other file: its own is that of the artifact.
    folder = artifact.resolve().name
    place = posixpath.join(there.root, "artifacts", digests[MANIFEST_NAME][:16], folder)
    if _intact(host, place, sums):
        report(f"{folder} is on {host} already")
        return place
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    report(f"copying {folder} to {host}, {megabytes:.1f} MB")
    host.run(_FOLDER, place)
    files = [str(artifact.resolve() / name) for name in digests]
    # First onto what an interrupted copy left; where that was something else, all that differs anew.
    for way in (("--partial", "--append-verify"), ("--partial", "--inplace", "--ignore-times")):
        _copy(host, files, place, way, megabytes)
        if _intact(host, place, sums):
            return place
    raise DeviceError(f"{host}: {place} differs from {artifact} although it was copied twice: its disk or its memory?")


def _intact(host: Host, place: str, sums: str) -> bool:
    return "intact" in host.run(_CHECK, place, given=sums).split()


def _copy(host: Host, files: list[str], place: str, way: tuple[str, ...], megabytes: float) -> None:
    user, at, name = host.address.rpartition("@")
    address = f"{user}{at}[{name}]" if ":" in name else host.address
    # --protect-args: the path there is not a word for its shell.
    argv = ["rsync", "--times", "--protect-args", *way, "--rsh", shlex.join(host.ssh()), "--", *files]
    done = run_here([*argv, f"{address}:{place}/"])
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr or "Disk quota exceeded" in done.stderr:
        raise DataError(
            f"the disk of {host} is full: {place} needs {megabytes:.1f} MB. Make room there, or choose another place "
            "with EMADEPLOY_CACHE there; what has arrived is kept"
        )
    error = host.failed(SSH_FAILED if done.returncode in _LOST else done.returncode, done.stderr)
    if isinstance(error, NoConnectionError):
        error = NoConnectionError(f"{error}. What has arrived is kept: the same command goes on from there")
    raise error
