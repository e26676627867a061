"""What a server counts, and how Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from emadeploy.serve.histogram import Histogram
from emadeploy.serve.models import Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Status -> why a request was dropped that a later, or more patient, client would have been answered.
_DROPPED = {499: "left", 503: "full", 504: "late"}


@dataclass
class Metrics:
    """What became of requests, by the model asked for: '' for none, or one that is not served."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    in_flight: int = 0

    def note(self, model: str, status: int, *, inference: bool, closing: bool, seconds: float) -> None:
        """Count a request that ended with ``status`` after ``seconds``."""
        self.requests[model, status] += 1
        if inference:
            self.seconds[model].add(seconds)
            if status in _DROPPED:
                self.dropped[model, "closing" if closing and status == 503 else _DROPPED[status]] += 1

    def text(self, models: Mapping[str, Served]) -> str:
        """Return everything, with the state of ``models`` now, as Prometheus reads it."""
        lines: list[str] = []

        def family(name: str, kind: str, what: str, samples: Iterator[tuple[str, Mapping[str, str], float]]) -> None:
            lines.extend((f"# HELP emadeploy_{name} {what}", f"# TYPE emadeploy_{name} {kind}"))
            for suffix, labels, value in samples:
                named = ",".join(f'{key}="{text}"' for key, text in labels.items())  # no text here has a quote
                lines.append(f"emadeploy_{name}{suffix}{{{named}}} {value}" if named else f"emadeploy_{name} {value}")

        def by(labels: tuple[str, ...], counts: Mapping[tuple[object, ...], float]) -> Iterator[tuple]:
            return (("", dict(zip(labels, map(str, key), strict=True)), value) for key, value in counts.items())

        def each(value: str) -> Iterator[tuple]:
            return by(("model",), {(name,): getattr(m.worker, value) for name, m in models.items() if not m.raw})

        def spread(histograms: Mapping[str, Histogram]) -> Iterator[tuple]:
            return (line for name, known in histograms.items() for line in known.samples({"model": name}))

        bodies = (("received", self.received), ("sent", self.sent))
        family("requests_total", "counter", "Requests answered, by status.", by(("model", "code"), self.requests))
        family("dropped_total", "counter", "Inferences dropped, by reason.", by(("model", "reason"), self.dropped))
        for name, counts in bodies:
            family(f"{name}_bytes_total", "counter", f"Bytes of bodies {name}.", by(("model",), _keyed(counts)))
        family("request_seconds", "histogram", "Inference requests, from headers to answer.", spread(self.seconds))
        engine = {name: model.counts.seconds for name, model in models.items()}
        family("inference_seconds", "histogram", "The engine's part of requests.", spread(engine))
        family("requests_in_flight", "gauge", "Requests being answered.", iter([("", {}, self.in_flight)]))
        family("places_taken", "gauge", "Requests read, waiting, running or being answered.", each("taken"))
        family("places", "gauge", "How many of these there may be.", each("places"))
        family("queue_depth", "gauge", "Requests that wait for the engine.", each("waiting"))
        return "\n".join(lines) + "\n"


def _keyed(counts: Mapping[str, int]) -> dict[tuple[str], int]:
    return {(name,): count for name, count in counts.items()}
