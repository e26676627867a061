"""The bench on another machine, all of it: a real sshd on loopback, the real emadeploy behind it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.bench.remote.greeting import greet
from emadeploy.bench.remote.host import Host, NoConnectionError
from emadeploy.bench.remote.sending import send
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.bench_parts.remote import measure_there
from emadeploy.contract.errors import DeviceError

Make = Callable[..., Path]


def test_a_bench_over_ssh(loopback, make_artifact: Make) -> None:
    artifact, said = make_artifact("my model"), []
    order = BenchOrder(artifacts=(artifact,), threads=1, percentile=50, min_time_s=0.0)
    report = measure_there(loopback.address, order, said.append)
    [row] = report.rows
    assert (row.name, row.status, row.artifact) == ("my model", "ok", str(artifact))
    assert row.latency_ms["n"] >= 11
    assert report.machine["host"] == loopback.address
    assert said[0].startswith("copying my model")
    assert not any("│" in line or "──" in line for line in said)  # the table is for the desk
    assert not list((loopback.cache / "bench" / "runs").iterdir())


def test_a_copy_over_ssh_goes_on(loopback, make_artifact: Make) -> None:
    host, artifact = Host.parse(loopback.address), make_artifact()
    there = greet(host)
    place = Path(send(host, there, artifact))
    whole = (place / "model.onnx").read_bytes()
    assert whole == (artifact / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(whole[:10])
    send(host, there, artifact)
    assert (place / "model.onnx").read_bytes() == whole


def test_a_port_where_nothing_listens(loopback) -> None:
    with pytest.raises(NoConnectionError, match=r"cannot be reached .*Connection refused"):
        greet(Host("root@127.0.0.1", 1))


def test_a_host_key_that_is_not_known(loopback, sshd) -> None:
    known = sshd[0] / "known"
    kept = known.read_text()
    known.write_text("")
    try:
        with pytest.raises(DeviceError, match="is not known here"):
            greet(Host.parse(loopback.address))
    finally:
        known.write_text(kept)


def test_a_host_key_that_has_changed(loopback, sshd, tmp_path: Path) -> None:
    known = sshd[0] / "known"
    kept = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    known.write_text(f"{kept.split()[0]} {(tmp_path / 'other.pub').read_text()}")
    try:
        with pytest.raises(DeviceError, match="another one than before"):
            greet(Host.parse(loopback.address))
    finally:
        known.write_text(kept)


def test_a_key_that_is_refused(loopback, sshd) -> None:
    authorized = sshd[0] / "authorized"
    kept = authorized.read_text()
    authorized.write_text("")
    try:
        with pytest.raises(DeviceError, match="refuses to let you in"):
            greet(Host.parse(loopback.address))
    finally:
        authorized.write_text(kept)
