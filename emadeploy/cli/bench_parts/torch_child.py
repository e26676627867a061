"""The process of a PyTorch row: it speaks as :mod:`emadeploy.bench.child`, and runs the network of a checkpoint.

``python -m emadeploy.cli.bench_parts.torch_child MODE ARTIFACT SOURCE FRAME.npy THREADS DEVICE``: ``MODE`` is eager or
compile; the network is that of SOURCE (`open_source`), all tasks of it, at the size of ARTIFACT.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.child import Say, be_first_to_go, peak_memory_mb, private_stdout, serve, told_errors
from emadeploy.cli.options import requires
from emadeploy.contract.errors import DeviceError, first_line
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import ModelSpec


def main() -> None:
    """Serve the protocol with the arguments of ``sys.argv``."""
    say = private_stdout()
    be_first_to_go()
    mode, artifact, source, frame, threads, device = sys.argv[1:]
    with told_errors(say):
        _serve(mode, Manifest.read(Path(artifact)), source, np.load(frame), int(threads), device, say)


def _serve(mode: str, manifest: Manifest, source: str, frame_HW3: Any, threads: int, device: str, say: Say) -> None:
    with requires("a PyTorch row", "train"):
        import torch

        from emadeploy.export.source import open_source
    torch.set_num_threads(threads)
    place = _place(device)
    baseline = peak_memory_mb()
    started = time.perf_counter()
    network = open_source(source, size=manifest.model.input.size, untrained=manifest.untrained).network
    network = network.eval().requires_grad_(False).to(place)
    deploy = torch.compile(network.deploy) if mode == "compile" else network.deploy
    torched = _Torch(deploy, network.spec, frame_HW3, place)
    try:
        torched.call()
    except Exception as error:
        raise DeviceError(f"PyTorch {torch.__version__} ({mode}) failed: {first_line(error)}") from None
    facts = {"engine": f"torch-{mode}", "version": torch.__version__, "device": device, "threads": threads}
    facts["device"] = "cpu" if place.type == "cpu" else f"gpu:{place.index or 0}"
    say({"ready": facts, "load_s": time.perf_counter() - started, "baseline_memory_mb": baseline})
    serve(torched, say)


def _place(device: str) -> Any:
    """Return the torch.device of 'auto', 'cpu', 'gpu' or 'gpu:1'; raises DeviceError where it is not here."""
    import torch

    kind, _, index = device.partition(":")
    if device == "auto":
        kind = "gpu" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "gpu" or not torch.cuda.is_available():
        raise DeviceError(f"device {device!r}: PyTorch {torch.__version__} as installed runs on cpu here")
    return torch.device("cuda", int(index or 0))


class _Torch:
    """A network of PyTorch and its frame."""

    def __init__(self, deploy: Any, spec: ModelSpec, frame_HW3: Any, place: Any) -> None:
        self._deploy, self._spec, self.frame, self._place = deploy, spec, frame_HW3, place

    def call(self) -> dict[str, float]:
        return self._answer(self.frame)

    def stream(self, frames: Iterator[Any]) -> Generator[Any, None, None]:
        # PyTorch has no stream of ours: one frame after the other.
        for frame_HW3 in frames:
            yield self._answer(frame_HW3)

    def memory(self) -> dict[str, float | None]:
        import torch

        if self._place.type == "cpu":
            return {"device_memory_mb": None}
        return {"device_memory_mb": torch.cuda.max_memory_allocated(self._place) / 1e6}

    def _answer(self, frame_HW3: Any) -> dict[str, float]:
        import torch

        marks = [time.perf_counter()]
        image = torch.from_numpy(preprocess(frame_HW3, self._spec.input))
        marks.append(time.perf_counter())
        image = image.to(self._place)
        self._wait()
        marks.append(time.perf_counter())
        with torch.inference_mode():
            raw = self._deploy(image)
        self._wait()
        marks.append(time.perf_counter())
        arrays = {name: maps.cpu().numpy() for name, maps in raw.items()}
        marks.append(time.perf_counter())
        for task in self._spec.tasks:
            decode(arrays[task.name], task, frame_HW3.shape[:2])
        marks.append(time.perf_counter())
        stages = ("preprocess", "copy_in", "inference", "copy_out", "decode")
        spent = [1e3 * (late - early) for early, late in itertools.pairwise(marks)]
        timings = dict(zip(stages, spent, strict=True))
        return timings if self._place.type != "cpu" else {k: v for k, v in timings.items() if "copy" not in k}

    def _wait(self) -> None:
        import torch

        if self._place.type != "cpu":
            torch.cuda.synchronize(self._place)


if __name__ == "__main__":
    main()
