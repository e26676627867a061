"""The child process that compiles, seen by its parent: its answers, its end, and what its end means."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from emadeploy.contract import errors
from emadeploy.contract.errors import BuildError, EmadeployError
from emadeploy.runtime.machine import memory_mb

#: Called with (what TensorRT does, steps done, steps in all).
Report = Callable[[str, int, int], None]

COMMAND = (sys.executable, "-m", "emadeploy.runtime.trt.child")
_LAST_WORDS = 400
_NO_MEMORY = re.compile(r"out ?of ?memory|MemoryAllocation|bad_alloc|insufficient memory", re.IGNORECASE)
_LITTLE_WORKSPACE = re.compile(r"workspace (limit|size)|insufficient workspace", re.IGNORECASE)
_ADVICE = (
    "Lower --workspace, close other programs (the desktop first), add swap (docs/jetson.md), or export a smaller --size"
)


def run_child(order: Mapping[str, Any], report: Report, command: tuple[str, ...] = COMMAND) -> dict[str, Any]:
    """Have a process of its own carry out ``order`` (`emadeploy.runtime.trt.child`), and return what it answers.

    ``report`` is called as it goes on. Whatever ends this function ends the process. Raises the EmadeployError that the
    process answers, with advice where memory or workspace was too little; BuildError where it was killed or crashed.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, bufsize=1
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            answer = _converse(process.stdin, process.stdout, order, report)
            status = process.wait() if answer is None else 0
        finally:
            # Also on Ctrl-C: the process itself does not hear it.
            process.kill()
            process.wait()
            process.stdout.close()
            _close(process.stdin)
        if answer is None:
            raise BuildError(_ended(status, _last_words(said), order))
    if "error" in answer:
        raise _error(answer["error"])
    done: dict[str, Any] = answer["done"]
    return done


def _converse(stdin: IO[str], stdout: IO[str], order: Mapping[str, Any], report: Report) -> dict[str, Any] | None:
    """Return the last answer of the process, ``None`` where it ends without one."""
    try:
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
    except BrokenPipeError:
        return None
    for line in stdout:
        if not line.endswith("\n"):
            return None  # it was killed in the middle of it
        answer: dict[str, Any] = json.loads(line)
        if "progress" not in answer:
            return answer
        report(*answer["progress"])
    return None


def _close(stdin: IO[str]) -> None:
    with suppress(BrokenPipeError):
        stdin.close()


def _ended(status: int, words: str, order: Mapping[str, Any]) -> str:
    """Return what the end of a process that gave no answer means, and what to do."""
    if status == -signal.SIGKILL:
        memory = memory_mb()
        has = f" (this machine has {memory} MiB)" if memory else ""
        workspace = order.get("settings", {}).get("workspace")
        had = f"; it built with a workspace of {workspace >> 20} MiB" if workspace else ""
        return f"the build was killed (SIGKILL), as Linux does where memory runs out{has}{had}. {_ADVICE}"
    how = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
    said = f"; its last words: {words}" if words else ""
    return (
        f"the build {how} inside of TensorRT{said}. Nothing was changed; try --optimization-level 2, or another "
        "version of TensorRT"
    )


def _error(told: Mapping[str, str]) -> EmadeployError:
    """Return the error that the process told of, with advice on memory where that was the matter."""
    kind = getattr(errors, told["kind"], BuildError)
    message = told["message"]
    if _LITTLE_WORKSPACE.search(message):
        message += ". A layer needs more workspace than it was allowed: raise --workspace"
    elif _NO_MEMORY.search(message):
        message += f". Memory ran out. {_ADVICE}"
    error: EmadeployError = kind(message)
    return error


def _last_words(said: IO[str]) -> str:
    said.seek(0)
    return " ".join(said.read().split())[-_LAST_WORDS:]
