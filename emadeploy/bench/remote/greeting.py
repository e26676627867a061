"""What a host has: the tools that a run needs, emadeploy in this version, and a place for artifacts and results."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from emadeploy import __version__
from emadeploy.bench.remote.host import Host
from emadeploy.contract.errors import BackendMissing, DeviceError

#: Tool that the scripts use -> its package in Debian and Ubuntu, a Jetson's among them.
_TOOLS = {"rsync": "rsync", "sha256sum": "coreutils", "flock": "util-linux", "setsid": "util-linux"}
#: Where a command that ssh runs may lie that is not on its PATH, which is shorter than that of a terminal.
_PLACES = (".local/bin", "perception/bin", ".venv/bin", "venv/bin", "emadeploy/.venv/bin")
#: Before each line that is ours: login files may print lines of their own.
_MARK = "emadeploy:"
_SCRIPT = f"""
for tool in {" ".join(_TOOLS)}; do
    command -v "$tool" >/dev/null || echo "{_MARK}missing $tool"
done
found=$(command -v emadeploy)
for place in {" ".join(_PLACES)}; do
    [ -n "$found" ] || found=$(command -v "$HOME/$place/emadeploy")
done
if [ -n "$found" ]; then
    echo "{_MARK}command $found"
    echo "{_MARK}version $("$found" --version 2>&1 | tail -n 1)"
fi
if [ -e /etc/nv_tegra_release ]; then echo "{_MARK}jetson yes"; fi
echo "{_MARK}cache ${{EMADEPLOY_CACHE:-$HOME/.cache/emadeploy}}"
"""


@dataclass(frozen=True)
class There:
    """A host that is ready: the ``emadeploy`` command and the ``root`` folder of all that is put there."""

    emadeploy: str
    root: str


def greet(host: Host) -> There:
    """Look at the host.

    Raises BackendMissing where emadeploy or a tool is not installed there, DeviceError where its emadeploy is of
    another version, and as :meth:`Host.run`.
    """
    said: dict[str, list[str]] = {}
    for line in host.run(_SCRIPT).splitlines():
        if line.startswith(_MARK):
            key, _, value = line.removeprefix(_MARK).partition(" ")
            said.setdefault(key, []).append(value)
    if missing := said.get("missing"):
        packages = " ".join(dict.fromkeys(_TOOLS[tool] for tool in missing))
        raise BackendMissing(f"{host} has no {', '.join(missing)}: install it there: sudo apt install {packages}")
    install = _install_line(jetson="jetson" in said)
    if "command" not in said:
        places = ", ".join(f"~/{place}" for place in _PLACES)
        raise BackendMissing(
            f"{host} has no emadeploy, neither on the PATH of a command over ssh nor in {places}: install it there: "
            f"{install}; or link it into ~/.local/bin"
        )
    # The last word, behind 'emadeploy'.
    version = said["version"][0].split()[-1:] or ["none"]
    if version != [__version__]:
        raise DeviceError(
            f"{host} has {said['command'][0]} of version {said['version'][0]!r}, here is {__version__}: reports and "
            f"artifacts of two versions may differ. Install the same there: {install}"
        )
    return There(said["command"][0], posixpath.join(said["cache"][0], "bench"))


def _install_line(*, jetson: bool) -> str:
    if jetson:
        return f"pip install emadeploy=={__version__}, beside the TensorRT of JetPack, as docs/jetson.md says"
    return f"pip install 'emadeploy[onnxruntime,openvino]=={__version__}'"
