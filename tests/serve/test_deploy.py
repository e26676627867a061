"""The Dockerfiles, as far as they can be checked without building them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def test_there_is_one_for_x86_and_one_for_l4t() -> None:
    assert [path.suffix for path in FILES] == [".l4t", ".x86"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_dockerfile_is_what_the_manifests_need(path: Path) -> None:
    found = instructions(path)
    known = {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in found} <= known
    bases = {rest.split()[0] for name, rest in found if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"[\w./-]+:\w*\d+\.\d+\.\d+[\w.-]*", bases.pop())  # of one version, never 'latest'
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", dict(found)["USER"])  # runAsNonRoot sees numbers alone
    assert dict(found)["ENTRYPOINT"] == '["emadeploy"]'
    assert dict(found)["EXPOSE"] == "8080"  # as the manifests of serve/kserve.py have it


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_what_is_copied_and_installed_is_there(path: Path) -> None:
    found = instructions(path)
    copied = {
        source
        for name, rest in found
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert {"pyproject.toml", "emadeploy", "models", "calibration", "constraints.txt"} <= copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    # What the wheel is made from is all there.
    for name in re.findall(r'^(?:readme = |license-files = \[)"(.+?)"', pyproject, flags=re.MULTILINE):
        assert name in copied
    (extras,) = re.findall(r'"\$wheel\[(.+?)\]"', path.read_text("utf-8"))
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE)
