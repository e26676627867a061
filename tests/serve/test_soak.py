"""Many requests of all kinds, from several clients at once: counters add up, and nothing stays behind."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of import Site, request, wait_until

Open = Callable[..., Site]
CLIENTS = 4


def resident_mb() -> float:
    """Return the memory of this process, the server's and the clients'."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def ask_until(site: Site, over: Callable[[int], bool]) -> Counter[int]:
    """Ask from several clients, wrongly too, until ``over`` says so of a client's count; return statuses."""
    found: Counter[int] = Counter()
    lock = threading.Lock()
    bodies = (request(), b"{", request(shape=[1, 2, 3]), request())

    def client() -> None:
        count = 0
        while not over(count):
            status, _ = site.post("/v2/models/tiny/infer", bodies[count % len(bodies)])
            count += 1
            with lock:
                found[status] += 1

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def check_counters(site: Site, found: Counter[int]) -> None:
    wait_until(lambda: site.worker.taken == 0 and site.app.metrics.in_flight == 0)
    metrics = site.app.metrics
    assert {code: count for (_, code), count in metrics.requests.items()} == dict(found)
    assert site.models["tiny"].counts.success == found[200]
    assert metrics.dropped["tiny", "full"] == found[503]
    assert sum(metrics.seconds["tiny"].counts) == sum(found.values())
    assert site.worker.waiting == 0


def test_counters_add_up(open_site: Open) -> None:
    site = open_site(queue=2)
    found = ask_until(site, lambda count: count >= 40)
    assert sum(found.values()) == 160
    assert found[200] > 0
    assert found[400] > 0
    assert set(found) <= {200, 400, 503}
    check_counters(site, found)


@pytest.mark.slow
def test_memory_is_flat(open_site: Open) -> None:
    """As long as EMADEPLOY_SOAK_SECONDS says: 600 for the release, less for a look."""
    seconds = float(os.environ.get("EMADEPLOY_SOAK_SECONDS", "60"))
    site = open_site(queue=2)
    found = ask_until(site, lambda count: count >= 500)  # caches, arenas and threads are there
    before, end = resident_mb(), time.monotonic() + seconds
    found += ask_until(site, lambda _: time.monotonic() > end)
    assert resident_mb() < 1.02 * before
    check_counters(site, found)
