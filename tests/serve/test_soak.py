"""Many requests of all kinds, from several clients at once: counters add up, and nothing stays behind."""

import gzip
import io
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_of import FRAME, Site, request, wait_until

Image = pytest.importorskip("PIL.Image")
Open = Callable[..., Site]
CLIENTS = 4
SLICES = 10
#: Latencies are counted in steps of so many seconds, up to a second: a list of them would grow like a leak.
STEP_S, STEPS = 1e-4, 10_000


def binary() -> tuple[bytes, dict[str, str]]:
    """Return an inference request for a frame and its maps in binary, and its header."""
    tensor = {"name": "frame", "datatype": "UINT8", "shape": list(FRAME.shape)}
    tensor["parameters"] = {"binary_data_size": FRAME.nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return text + FRAME.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(FRAME).save(file, "JPEG")
    return file.getvalue()


#: What is asked in turns: path, body, headers and the status where the queue has room.
ASKED: list[tuple[str, bytes, dict[str, str], int]] = [
    ("infer", *binary(), 200),
    ("infer", request(), {}, 200),
    ("infer", b"{", {}, 400),
    ("image", picture(), {}, 200),
    ("infer", request(shape=[1, 2, 3]), {}, 400),
    ("infer", *binary(), 200),
    ("infer", gzip.compress(request()), {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}, 200),
    ("image?picture=all", picture(), {}, 200),
    ("image", b"GIF89a", {}, 415),
]


class Tally:
    """What clients saw: statuses, those that left, and the latency of binary answers in slices of time."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.left = 0
        self._latencies = np.full((SLICES, STEPS), 0, np.int64)  # zeros would take its memory later, like a leak
        self._lock = threading.Lock()

    def note(self, status: int, seconds: float | None, part: int) -> None:
        """Count an answer, and its latency where ``seconds`` is one."""
        with self._lock:
            self.statuses[status] += 1
            if seconds is not None:
                self._latencies[part, min(int(seconds / STEP_S), STEPS - 1)] += 1

    def note_left(self) -> None:
        with self._lock:
            self.left += 1

    def latency_ms(self, first: int, last: int) -> float:
        """Return the median over the slices from ``first`` to before ``last``."""
        running = self._latencies[first:last].sum(axis=0).cumsum()
        assert running[-1] > 0
        return 1e3 * STEP_S * (int(np.searchsorted(running, running[-1] / 2)) + 0.5)


def leave(site: Site) -> None:
    """Go in the middle of a body."""
    with site.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")


def ask_until(site: Site, tally: Tally, share: Callable[[int], float], *, leaving: bool = False) -> None:
    """Ask from several clients, each as fast as it is answered, until ``share`` of a client's count of requests is 1.

    ``share`` also says in which slice a latency is counted.
    """
    wrong: list[str] = []

    def client(first: int) -> None:
        count = first
        while (done := share(count - first)) < 1:
            path, body, headers, expected = ASKED[count % len(ASKED)]
            started = time.perf_counter()
            status, _ = site.post(f"/v2/models/tiny/{path}", body, **headers)
            timed = status == 200 and headers.keys() == {"Inference-Header-Content-Length"}
            tally.note(status, time.perf_counter() - started if timed else None, int(done * SLICES))
            if status not in (expected, 503):
                wrong.append(f"{path} {status}")
            if leaving and count % 50 == 0:
                leave(site)
                tally.note_left()
            count += 1

    threads = [threading.Thread(target=client, args=(2 * index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def resident_mb() -> float:
    """Return the memory of this process, the server's and the clients'."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def check_counters(site: Site, tally: Tally) -> None:
    """The server's counts are the clients' own."""
    metrics, found = site.app.metrics, tally.statuses
    asked = found.total() + tally.left
    wait_until(lambda: metrics.requests.total() >= asked and metrics.in_flight == 0 and site.worker.taken == 0)
    counts: Counter[Any] = Counter({code: count for (_, code), count in metrics.requests.items()})
    gone = counts.pop(499, 0)
    refused = tally.left - gone  # those that left, but were refused a place before they did
    assert refused >= 0
    assert counts == found + Counter({503: refused})
    assert site.models["tiny"].counts.success == found[200]
    assert site.models["tiny"].counts.fail == 0
    assert metrics.dropped["tiny", "full"] == counts[503]
    assert metrics.dropped["tiny", "left"] == gone
    assert sum(metrics.seconds["tiny"].counts) == asked
    assert sum(site.models["tiny"].counts.seconds.counts) == found[200]
    assert site.worker.waiting == 0


def test_counters_add_up(open_site: Open) -> None:
    site, tally = open_site(queue=2), Tally()
    ask_until(site, tally, lambda count: count / 40, leaving=True)
    assert tally.statuses.total() == 40 * CLIENTS
    assert tally.left > 0
    assert tally.statuses[200] > 0
    assert tally.statuses[400] > 0
    check_counters(site, tally)


def test_a_median_is_of_its_slices() -> None:
    tally = Tally()
    for part, seconds in ((0, 0.010), (0, 0.020), (0, 0.020), (1, 5.0)):
        tally.note(200, seconds, part)
    assert tally.latency_ms(0, 1) == pytest.approx(20.0, abs=0.1)
    assert tally.latency_ms(1, 2) == pytest.approx(1e3, rel=0.01)


@pytest.mark.slow
def test_a_soak_at_full_rate_leaves_memory_and_latency_as_they_were(open_site: Open) -> None:
    """As long as EMADEPLOY_SOAK_SECONDS says: 600 for the release, on an idle machine; less for a look.

    Resident memory, of medians over a tenth of the time each, stays within 2 % of the first; latency, of the last three
    tenths against the first three, within a quarter.
    """
    seconds = float(os.environ.get("EMADEPLOY_SOAK_SECONDS", "60"))
    site, warm, tally = open_site(queue=2), Tally(), Tally()
    ask_until(site, warm, lambda count: count / 2000, leaving=True)  # caches, arenas and threads are there
    memory: list[list[float]] = [[] for _ in range(SLICES)]
    began, over = time.monotonic(), threading.Event()

    def watch() -> None:
        while not over.wait(seconds / 200):
            memory[min(SLICES - 1, int(SLICES * (time.monotonic() - began) / seconds))].append(resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    ask_until(site, tally, lambda _: (time.monotonic() - began) / seconds, leaving=True)
    over.set()
    watcher.join()
    resident = [float(np.median(values)) for values in memory]
    first, last = tally.latency_ms(0, 3), tally.latency_ms(SLICES - 3, SLICES)
    print(
        f"{dict(tally.statuses)} in {seconds:g} s; MB {[round(mb, 1) for mb in resident]}; ms {first:.1f}, {last:.1f}"
    )
    tally.statuses += warm.statuses
    tally.left += warm.left
    check_counters(site, tally)
    assert max(resident) < 1.02 * resident[0], resident
    assert last < 1.25 * first
