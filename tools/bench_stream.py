"""Compare `perception.stream(source)` with calling `perception(frame)` in a loop, in turns on the same frames.

    python tools/bench_stream.py ARTIFACT [--frame-size 1080x1920] [--frames 40] [--rounds 5] [--source pictures]
                                 [--camera-fps 30] [--threads N] [--json FILE]

Frames per second: the loop and the stream take turns over the same frames, from memory or as pictures on disk (whose
reading the stream overlaps too); the ratio is the median over the rounds. Age of the newest frame: a made camera gives
`--camera-fps` frames per second; the age of a result is the time from its capture until the loop has it, to be at most
two inference times. CPU seconds tell what overlapping costs even where other programs disturb the clock. Needs an idle
machine; exit status 1 where the stream is slower than the loop.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emadeploy import Runtime, load
from emadeploy.data.source import open_data
from emadeploy.pictures import opencv
from emadeploy.robotics.sources import open_source
from emadeploy.runtime.machine import cpu_model, usable_cores

#: Streams may be this much slower before they count as such: timers and schedulers are not exact.
TOLERANCE = 0.97


@dataclass(frozen=True)
class Shot:
    """A frame of the made camera; ``stamp`` is on the clock of time.perf_counter."""

    pixels: np.ndarray
    stamp: float


class Took(NamedTuple):
    """Seconds on the clock, and seconds that all processors together worked."""

    wall: float
    cpu: float


class MadeCamera:
    """A live source that gives frames at a fixed rate for some seconds."""

    live = True

    def __init__(self, frames: Sequence[np.ndarray], fps: float, seconds: float) -> None:
        self._frames, self._fps, self._seconds = frames, fps, seconds
        self.over = False

    def frames(self, on_bad: Any = None) -> Iterator[Shot]:
        start = time.perf_counter()
        for index in itertools.count():
            time.sleep(max(0.0, start + index / self._fps - time.perf_counter()))
            self.over = time.perf_counter() - start > self._seconds
            yield Shot(self._frames[index % len(self._frames)], time.perf_counter())


def by_loop(perception: Runtime, source: Any) -> None:
    """Run every frame in a loop of calls."""
    for frame in _plain(source):
        perception(frame)


def by_stream(perception: Runtime, source: Any) -> None:
    """Run every frame in a stream."""
    for _ in perception.stream(source, drop="none"):
        pass


def timed(run: Callable[[Runtime, Any], None], perception: Runtime, source: Any) -> Took:
    """Return what ``run`` takes of the clock and of the processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(perception, source)
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def ages(perception: Runtime, frames: Sequence[np.ndarray], fps: float, seconds: float) -> dict[str, Any]:
    """Return how old results of a made camera are, in ms, and what became of its frames."""
    found, inference = [], []
    camera = MadeCamera(frames, fps, seconds)
    stream = perception.stream(camera)
    for result in stream:
        found.append(1e3 * (time.perf_counter() - result.stamp))
        inference.append(result.timings["inference"])
        if camera.over:  # a live source that ends would be opened again
            break
    settled = found[3:] or found
    stats = stream.stats
    return {
        "camera_fps": fps,
        "age_ms": {
            "p50": float(np.quantile(settled, 0.5)),
            "p90": float(np.quantile(settled, 0.9)),
            "max": max(settled),
        },
        "inference_ms": statistics.median(inference),
        "age_in_inferences": float(np.quantile(settled, 0.5)) / statistics.median(inference),
        "captured": stats.captured,
        "answered": stats.answered,
        "dropped": stats.dropped,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--frame-size", default="288x384", help="HxW of the frames")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", choices=("memory", "pictures"), default="memory")
    parser.add_argument("--camera-fps", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    height, width = (int(extent) for extent in options.frame_size.split("x"))
    frames = made_frames(options.frames, height, width)
    with load(options.artifact, threads=options.threads) as perception, tempfile.TemporaryDirectory() as folder:
        source: Any = frames if options.source == "memory" else write_pictures(frames, Path(folder))
        record = measure(perception, source, frames, options)
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    return 0 if record["ratio"]["median"] >= TOLERANCE else 1


def measure(perception: Runtime, source: Any, frames: list[np.ndarray], options: argparse.Namespace) -> dict[str, Any]:
    """Return the record of all that is measured."""
    stages: dict[str, list[float]] = {}
    for frame in frames[:5]:
        for stage, ms in perception(frame).timings.items():
            stages.setdefault(stage, []).append(ms)
    median = {stage: statistics.median(times) for stage, times in stages.items()}
    rounds = []
    for turn in range(options.rounds):
        # Whoever goes first may find a cooler processor.
        both = (by_loop, by_stream) if turn % 2 == 0 else (by_stream, by_loop)
        took = {run: timed(run, perception, source) for run in both}
        rounds.append((took[by_loop], took[by_stream]))
    ratios = [loop.wall / stream.wall for loop, stream in rounds]
    newest = ages(perception, frames, options.camera_fps, 20 * sum(median.values()) / 1e3)
    return {
        "schema": 1,
        "command": "python tools/bench_stream.py",
        "artifact": perception.spec.name,
        "target": perception.manifest.target,
        "machine": {"cpu": cpu_model(), "cores": usable_cores()},
        "threads": perception.describe().get("threads"),
        "frame": options.frame_size,
        "source": options.source,
        "frames": len(frames),
        "loop_stages_ms": median,
        "fps": {
            "loop": len(frames) / statistics.median(loop.wall for loop, _ in rounds),
            "stream": len(frames) / statistics.median(stream.wall for _, stream in rounds),
        },
        "cpu_s_per_frame": {
            "loop": statistics.median(loop.cpu for loop, _ in rounds) / len(frames),
            "stream": statistics.median(stream.cpu for _, stream in rounds) / len(frames),
        },
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "newest": newest,
    }


def made_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """Return made rooms, enlarged: decoding takes longer the more borders the labels have, so noise would not do."""
    rooms = open_data(f"rooms:seed=7,count={count},size=288x384", split="val")
    resize = opencv().resize
    return [resize(np.ascontiguousarray(rooms[index].image), (width, height)) for index in range(count)]


def write_pictures(frames: Sequence[np.ndarray], folder: Path) -> str:
    """Write the frames as jpg files into ``folder`` and return it, as the text of a source."""
    for index, frame in enumerate(frames):
        opencv().imwrite(str(folder / f"{index:06d}.jpg"), frame[:, :, ::-1])
    return str(folder)


def _plain(source: Any) -> Iterator[np.ndarray]:
    if isinstance(source, str):
        return (frame.pixels for frame in open_source(source).frames())
    return iter(source)


if __name__ == "__main__":
    sys.exit(main())
