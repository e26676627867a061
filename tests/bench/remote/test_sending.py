"""Artifacts on their way: each once, interrupted copies go on, what differs is copied anew."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.bench.remote.greeting import There
from emadeploy.bench.remote.host import Host, NoConnectionError
from emadeploy.bench.remote.sending import send
from emadeploy.contract.errors import ArtifactError, BackendMissing, DataError, DeviceError

JETSON = Host("user@jetson")
THERE = There("/bin/emadeploy", "/cache/bench")
Make = Callable[..., Path]


def test_an_artifact_is_copied_once(there, make_artifact: Make) -> None:
    host, artifact, said = Host.parse(there.address), make_artifact("my model"), []
    root = There("", str(there.cache / "bench"))
    place = send(host, root, artifact, said.append)
    assert Path(place).name == "my model"
    for path in artifact.iterdir():
        assert (Path(place) / path.name).read_bytes() == path.read_bytes()
    assert send(host, root, artifact, said.append) == place
    assert [line.split()[0] for line in said] == ["copying", "my"]


def test_an_interrupted_copy_goes_on(there, make_artifact: Make) -> None:
    host, artifact = Host.parse(there.address), make_artifact()
    root = There("", str(there.cache / "bench"))
    place = Path(send(host, root, artifact, lambda _: None))
    whole = (artifact / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(whole[:100])
    number = (place / "model.onnx").stat().st_ino
    send(host, root, artifact, lambda _: None)
    assert (place / "model.onnx").read_bytes() == whole
    assert (place / "model.onnx").stat().st_ino == number  # continued, not replaced


def test_a_copy_that_is_damaged_there_is_copied_anew(there, make_artifact: Make) -> None:
    host, artifact = Host.parse(there.address), make_artifact()
    root = There("", str(there.cache / "bench"))
    place = Path(send(host, root, artifact, lambda _: None))
    whole = (artifact / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(bytes(len(whole)))
    shutil.copystat(artifact / "model.onnx", place / "model.onnx")
    send(host, root, artifact, lambda _: None)
    assert (place / "model.onnx").read_bytes() == whole


def test_a_damaged_artifact_is_refused_before_anything_is_sent(
    programs: Callable[..., Path], make_artifact: Make
) -> None:
    artifact = make_artifact()
    (artifact / "model.onnx").write_bytes(b"x")
    programs()
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        send(JETSON, THERE, artifact)


@pytest.mark.parametrize(
    ("status", "said", "kind", "expected"),
    [
        (
            11,
            "rsync: write failed: No space left on device (28)",
            DataError,
            "disk of user@jetson is full.*needs 0.0 MB",
        ),
        (12, "Connection to jetson closed by remote host.", NoConnectionError, "lost.*the same command goes on from"),
        (255, "user@jetson: Permission denied (publickey).", DeviceError, "refuses to let you in"),
        (23, "rsync: mkstemp failed: Permission denied", DeviceError, "user@jetson: rsync: mkstemp failed"),
    ],
)
def test_what_rsync_says_where_it_fails(
    programs: Callable[..., Path], make_artifact: Make, status: int, said: str, kind: type[Exception], expected: str
) -> None:
    artifact = make_artifact()
    programs(ssh="exit 0", rsync=f"echo '{said}' >&2; exit {status}")
    with pytest.raises(kind, match=expected) as caught:
        send(JETSON, THERE, artifact, lambda _: None)
    assert type(caught.value) is kind


def test_a_machine_without_rsync_is_told_what_to_install(programs: Callable[..., Path], make_artifact: Make) -> None:
    artifact = make_artifact()
    programs(ssh="exit 0")
    with pytest.raises(BackendMissing, match=r"needs rsync.*apt install rsync"):
        send(JETSON, THERE, artifact, lambda _: None)


def test_what_differs_after_two_copies_is_an_error(programs, make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    programs(ssh="exit 0", rsync=f"echo x >>{tmp_path}/copies")
    with pytest.raises(DeviceError, match=r"differs from .* copied twice"):
        send(JETSON, THERE, artifact, lambda _: None)
    assert (tmp_path / "copies").read_text() == "x\nx\n"
