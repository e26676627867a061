"""`emadeploy serve`, through the installed command."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emadeploy import load

pytest.importorskip("uvicorn")
pytest.importorskip("onnxruntime")

FRAME = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
Start = Callable[..., tuple[Any, str]]


@pytest.fixture
def start(emadeploy_command: list[str]) -> Iterator[Start]:
    """Return a function that starts the command on a free port, and returns its process and address."""
    running: list[subprocess.Popen[str]] = []

    def start_one(*arguments: object) -> tuple[subprocess.Popen[str], str]:
        argv = [*emadeploy_command, "serve", *map(str, arguments), "--port", "0"]
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        line = running[-1].stdout.readline()  # type: ignore[union-attr]
        assert line.startswith("serving "), running[-1].communicate()
        return running[-1], line

    yield start_one
    for process in running:
        process.kill()
        process.communicate()


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    try:
        request = urllib.request.Request(f"http://{address}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_two_artifacts_are_served_until_sigterm(start: Start, make_artifact: Callable[..., Path]) -> None:
    http = pytest.importorskip("tritonclient.http")
    folders = make_artifact("tiny"), make_artifact("sized", frame_size=(50, 70))
    process, line = start(*folders)
    assert line.startswith("serving tiny, tiny.raw, sized on http://127.0.0.1:")
    address = line.split("http://")[1].strip("/\n")
    client = http.InferenceServerClient(address)
    given = http.InferInput("frame", list(FRAME.shape), "UINT8")
    given.set_data_from_numpy(FRAME)
    for folder in folders:
        with load(folder) as runtime:
            expected = runtime(FRAME).maps
        answer = client.infer(folder.name, [given])
        for task, found in expected.items():
            np.testing.assert_array_equal(answer.as_numpy(task), found)
    client.close()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_token_is_asked_for_and_0_0_0_0_without_one_is_said(
    start: Start, make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret\n")
    process, line = start(make_artifact(), "--token-file", tmp_path / "token")
    address = line.split("http://")[1].strip("/\n")
    assert ask(address, "/v2")[0] == 401
    status, body = ask(address, "/v2", Authorization="Bearer secret")
    assert (status, json.loads(body)["name"]) == (200, "emadeploy")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == ""

    process, _ = start(make_artifact("open"), "--host", "0.0.0.0")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert said == "emadeploy: 0.0.0.0 is reachable by others, and no token is set (--token-file)\n"


def test_a_port_in_use_is_one_line_before_anything_is_loaded(emadeploy_command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = [*emadeploy_command, "serve", "nowhere", "--port", port]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"emadeploy: DeviceError: port {port} of 127.0.0.1 cannot be had: Address already in use; choose another "
        "--port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "ArtifactError: nowhere does not exist"),
        (["ARTIFACT", "ARTIFACT"], "SpecError: two artifacts would be served as 'artifact'"),
        (["ARTIFACT", "--host", "no.such.host.invalid"], "DeviceError: --host 'no.such.host.invalid' is no address"),
        (["ARTIFACT", "--host", "8.8.8.8"], "DeviceError: port 0 of 8.8.8.8 cannot be had"),
        (["ARTIFACT", "--timeout", "inf"], "SpecError: a timeout of inf s is no time"),
        (["ARTIFACT", "--token-file", "/nowhere"], "SpecError: --token-file /nowhere cannot be read"),
        (["ARTIFACT", "--token-file", "EMPTY"], "EMPTY is empty; write one, or unset it"),
        (["ARTIFACT", "--token-file", "SPACED"], "SPACED is not one word of ASCII"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_status_1(
    make_artifact: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    from emadeploy.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").write_text(" \n")
    (tmp_path / "SPACED").write_text("two words")
    places = {"ARTIFACT": str(make_artifact())}
    argv = ["emadeploy", "serve", "--port", "0", *(places.get(argument, argument) for argument in arguments)]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert says in err


def test_an_engine_that_does_not_stop_is_said_and_the_process_ends(
    make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    program = tmp_path / "stuck.py"
    program.write_text(
        "import sys, threading\n"
        "from emadeploy.cli.app import main\n"
        "from emadeploy.serve import models, server\n"
        "def run(self):\n"
        "    began = threading.Event()\n"
        "    place = next(iter(self._gate._models.values())).worker.enter()\n"
        "    place.submit(lambda: (began.set(), threading.Event().wait()))\n"
        "    began.wait()\n"
        "server.Server.run = run\n"
        "models.close_models.__defaults__ = (0.1,)\n"
        f"sys.argv = ['emadeploy', 'serve', {str(make_artifact())!r}, '--port', '0']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "emadeploy: DeviceError: the engine of artifact does not stop; the process ends without it\n"
    )
