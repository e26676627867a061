"""Hosts: what is one, what ssh says where it fails, what must be installed here and there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy import __version__
from emadeploy.bench.remote.greeting import greet
from emadeploy.bench.remote.host import Host, NoConnectionError
from emadeploy.contract.errors import BackendMissing, DeviceError, SpecError

JETSON = Host("user@jetson")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("jetson", Host("jetson")),
        ("user@jetson", Host("user@jetson")),
        ("user@10.0.0.7:2222", Host("user@10.0.0.7", 2222)),
        ("me@[fe80::1]:22", Host("me@fe80::1", 22)),
    ],
)
def test_a_host_is_read_and_said_as_it_was_given(text: str, host: Host) -> None:
    assert Host.parse(text) == host
    assert str(host) == text


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a@-b", "a b", "a@b@c", "jetson:", "jetson:99999", "a;b", "a/b"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not"):
        Host.parse(text)


def test_a_command_names_the_port_and_ends_the_options_before_the_host() -> None:
    argv = Host("user@jetson", 2222).command("echo $1", "two words")
    assert argv[0] == "ssh"
    assert argv[argv.index("-p") + 1] == "2222"
    assert argv[-3:-1] == ["--", "user@jetson"]
    assert "BatchMode=yes" in argv


@pytest.mark.parametrize(
    ("said", "expected", "kind"),
    [
        ("ssh: connect to host jetson port 22: Connection refused", "cannot be reached .*refused", NoConnectionError),
        ("ssh: Could not resolve hostname jetson: Name or service not known", "cannot be reached", NoConnectionError),
        ("user@jetson: Permission denied (publickey,password).", "refuses to let you in.*ssh-copy-id", DeviceError),
        ("No ED25519 host key is known\nHost key verification failed.", "not known here.*once by hand", DeviceError),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "another one than before.*ssh-keygen -R",
            DeviceError,
        ),
        ("Connection to jetson closed by remote host.", "connection to user@jetson was lost", NoConnectionError),
        ("", "was lost: ssh does not say why", NoConnectionError),
    ],
)
def test_what_ssh_says_where_it_fails(
    programs: Callable[..., Path], said: str, expected: str, kind: type[DeviceError]
) -> None:
    programs(ssh=f"echo '{said}' >&2; exit 255")
    with pytest.raises(DeviceError, match=expected) as caught:
        JETSON.run("true")
    assert type(caught.value) is kind


def test_a_script_that_fails_there_is_told_with_its_last_line(programs: Callable[..., Path]) -> None:
    programs(ssh="echo mkdir: cannot create directory: Read-only file system >&2; exit 1")
    with pytest.raises(DeviceError, match=r"user@jetson: mkdir: .*Read-only"):
        JETSON.run("mkdir x")
    programs(ssh="exit 3")
    with pytest.raises(DeviceError, match="status 3"):
        JETSON.run("exit 3")


def test_a_machine_without_ssh_is_told_what_to_install(programs: Callable[..., Path]) -> None:
    programs()
    with pytest.raises(BackendMissing, match=r"needs ssh.*openssh-client"):
        JETSON.run("true")


def answer(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


READY = (
    "emadeploy:command /opt/bin/emadeploy",
    f"emadeploy:version emadeploy {__version__}",
    "emadeploy:cache /data/c",
)


def test_a_host_that_is_ready(programs: Callable[..., Path]) -> None:
    programs(ssh=answer("Welcome to Ubuntu", *READY))
    there = greet(JETSON)
    assert there.emadeploy == "/opt/bin/emadeploy"
    assert there.root == "/data/c/bench"


def test_a_host_without_emadeploy_is_told_what_to_install(programs: Callable[..., Path]) -> None:
    programs(ssh=answer("emadeploy:cache /c"))
    with pytest.raises(BackendMissing, match=r"has no emadeploy.*pip install 'emadeploy\[onnxruntime,openvino\]=="):
        greet(JETSON)
    programs(ssh=answer("emadeploy:jetson yes", "emadeploy:cache /c"))
    with pytest.raises(BackendMissing, match=r"TensorRT of JetPack, as docs/jetson.md"):
        greet(JETSON)


def test_a_host_with_another_version_is_refused(programs: Callable[..., Path]) -> None:
    programs(ssh=answer("emadeploy:command /e", "emadeploy:version emadeploy 99.1", "emadeploy:cache /c"))
    with pytest.raises(DeviceError, match=f"'emadeploy 99.1', here is {__version__}"):
        greet(JETSON)


def test_a_host_whose_emadeploy_does_not_answer_is_refused(programs: Callable[..., Path]) -> None:
    programs(ssh=answer("emadeploy:command /e", "emadeploy:version ", "emadeploy:cache /c"))
    with pytest.raises(DeviceError, match="of version ''"):
        greet(JETSON)


def test_a_host_without_a_tool_is_told_its_package(programs: Callable[..., Path]) -> None:
    programs(ssh=answer("emadeploy:missing flock", "emadeploy:missing rsync", *READY))
    with pytest.raises(BackendMissing, match=r"has no flock, rsync.*apt install util-linux rsync"):
        greet(JETSON)
