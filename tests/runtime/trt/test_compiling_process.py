"""The process that compiles, seen by its parent: what it answers, and how its end is told."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from emadeploy.contract.errors import BackendMissing, BuildError, DeviceError
from emadeploy.runtime.trt.process import run_child

READ = "import json, os, signal, sys, time; order = json.loads(sys.stdin.readline())\n"


def says(**answer: Any) -> str:
    return f"print({json.dumps(answer)!r}, flush=True)\n"


def run(script: str, report: Any = None, **order: Any) -> dict[str, Any]:
    return run_child(order, report or (lambda *_: None), (sys.executable, "-c", READ + script))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_progress_is_handed_on_and_the_last_answer_returned() -> None:
    steps: list[Any] = []
    script = says(progress=["Timing", 1, 10]) + "print(json.dumps({'done': {'given': order}}), flush=True)"
    assert run(script, lambda *step: steps.append(step), engine="tensorrt") == {"given": {"engine": "tensorrt"}}
    assert steps == [("Timing", 1, 10)]


def test_a_kill_is_told_as_memory_that_ran_out() -> None:
    script = says(progress=["Timing", 1, 10]) + "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(
        BuildError, match=r"killed \(SIGKILL\).*workspace of 512 MiB\. Lower --workspace, close.*--size"
    ):
        run(script, settings={"workspace": 512 << 20})
    with pytest.raises(BuildError, match=r"where memory runs out \(this machine has \d+ MiB\)\. Lower"):
        run(script, settings={"workspace": None})


def test_a_kill_in_the_middle_of_an_answer_is_one_too() -> None:
    with pytest.raises(BuildError, match="SIGKILL"):
        run("os.write(1, b'{\"do'); os.kill(os.getpid(), signal.SIGKILL)")


def test_a_process_that_ends_before_it_listens_is_told() -> None:
    with pytest.raises(BuildError, match="ended with status 3"):
        run_child({"much": "x" * 1_000_000}, lambda *_: None, (sys.executable, "-c", "import sys; sys.exit(3)"))


def test_a_crash_is_told_with_its_last_words() -> None:
    script = "print('myelin: assertion failed', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(BuildError, match=r"crashed \(SIGSEGV\) inside of TensorRT; its last words: .*assertion failed"):
        run(script)


@pytest.mark.parametrize(
    ("kind", "error"), [("DeviceError", DeviceError), ("BackendMissing", BackendMissing), ("Other", BuildError)]
)
def test_an_error_comes_as_what_it_was(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^what was found$"):
        run(says(error={"kind": kind, "message": "what was found"}))


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Error Code 2: OutOfMemory", "Memory ran out. Lower --workspace"),
        ("CUDA error cudaErrorMemoryAllocation", "Memory ran out. Lower --workspace"),
        ("no tactics to implement the operation within workspace limit", "raise --workspace"),
    ],
)
def test_too_little_memory_comes_with_advice(message: str, advice: str) -> None:
    with pytest.raises(BuildError, match=f"{message}.*{advice}"):
        run(says(error={"kind": "BuildError", "message": message}))


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    mark = tmp_path / "process"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    script = f"open({str(mark)!r}, 'w').write(str(os.getpid()))\n" + says(progress=["", 0, 1]) + "time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run(script, interrupt)
    assert not is_alive(int(mark.read_text()))


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed cannot end its child: the end of its pipe does."""
    read, write = os.pipe()
    script = "from emadeploy.runtime.trt.child import _end_with_parent; _end_with_parent()"
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", script],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_CLOSE, write)],
    )
    os.close(read)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
