"""Hosts: one that an ``ssh`` of ours pretends, a real sshd on loopback with its own keys, and programs that fail."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
_NEEDED = ("ssh", "ssh-keygen", "rsync", "flock", "setsid", "sha256sum")


#: Runs what it is given here, after the options and the address, as the login shell there would.
_PRETENDED = """
while [ $# -gt 0 ]; do
    case $1 in -o | -p | -l) shift 2 ;; -*) shift ;; *) break ;; esac
done
shift
export PATH='{path}' EMADEPLOY_CACHE='{cache}'
exec sh -c "$*"
"""


@dataclass(frozen=True)
class There:
    """A host: ``address`` for `--host`, ``cache``: its folder, ``bin``: first on its PATH, ``ssh``: leads to it."""

    address: str
    cache: Path
    bin: Path
    ssh: Path


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    """Return a host that is this machine, without a connection: for what runs there, and in which order."""
    missing = [tool for tool in _NEEDED[2:] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt install rsync util-linux coreutils")
    folder = tmp_path / "here"
    programs = tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    cache = tmp_path / "a cache"
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    _program(folder / "ssh", _PRETENDED.format(path=path, cache=cache))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return There("user@jetson", cache, programs, folder / "ssh")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Start OpenSSH's server as this user on a free port of loopback; yield its folder and its port.

    Skipped where it or a tool is not installed. The folder holds ssh_config for clients, and the cache there.
    """
    missing = [tool for tool in _NEEDED if shutil.which(tool) is None]
    if SSHD is None or missing:
        pytest.skip(f"no {', '.join(['sshd'] * (SSHD is None) + missing)}: apt install openssh-server rsync")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f'PermitRootLogin prohibit-password\nSetEnv "PATH={path}" "EMADEPLOY_CACHE={folder / "cache"}"\n'
    )
    public = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder / 'known'}\n  GlobalKnownHostsFile /dev/null\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges; a service makes it else
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    try:
        _wait_for(port, server)
        yield folder, port
    finally:
        server.terminate()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    server.kill()
    _, said = server.communicate()
    pytest.skip(f"sshd does not start here: {said.decode(errors='replace').strip()[-300:]}")


@pytest.fixture
def loopback(sshd: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[There]:
    """Yield the host of the real sshd, with an empty cache, and an ``ssh`` on the PATH here that knows its keys."""
    server, port = sshd
    folder = tmp_path / "here"
    folder.mkdir()
    _program(folder / "ssh", f'exec {shutil.which("ssh")} -F {server / "ssh_config"} "$@"')
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    address = f"{getpass.getuser()}@127.0.0.1:{port}"
    yield There(address, server / "cache", Path(sys.executable).parent, folder / "ssh")
    shutil.rmtree(server / "cache", ignore_errors=True)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes the PATH hold scripts alone: name='what sh does'. It returns their folder."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(**scripts: str) -> Path:
        for name, script in scripts.items():
            _program(folder / name, script)
        return folder

    return write


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
