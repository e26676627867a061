"""What a server counts: as Prometheus' own parser and Triton's own messages read it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of import Site, request, wait_until

from emadeploy.serve.histogram import BOUNDS, Histogram

Open = Callable[..., Site]


def scrape(site: Site) -> dict[tuple[str, ...], float]:
    """Return name and labels -> value of every sample, as Prometheus reads them."""
    parser = pytest.importorskip("prometheus_client.parser")
    status, headers, body = site.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {}
    for family in parser.text_string_to_metric_families(body.decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = (f"{key}={value}" for key, value in sample.labels.items())
            found[(sample.name, *labels)] = sample.value
    return found


def test_prometheus_reads_what_happened(site: Site) -> None:
    size = len(request())
    for _ in range(3):
        assert site.post("/v2/models/tiny/infer", request())[0] == 200
    assert site.post("/v2/models/tiny/infer", b"{")[0] == 400
    assert site.post('/v2/models/no"body/infer', b"")[0] == 404
    release = site.occupy()
    found = scrape(site)
    release.set()
    assert found["emadeploy_requests_total", "model=tiny", "code=200"] == 3
    assert found["emadeploy_requests_total", "model=tiny", "code=400"] == 1
    assert found["emadeploy_requests_total", "model=", "code=404"] == 1
    assert found["emadeploy_received_bytes_total", "model=tiny"] == 3 * size + 1
    assert found["emadeploy_sent_bytes_total", "model=tiny"] > 300
    assert found["emadeploy_request_seconds_count", "model=tiny"] == 4
    assert found["emadeploy_request_seconds_bucket", "model=tiny", "le=+Inf"] == 4
    assert found["emadeploy_inference_seconds_count", "model=tiny"] == 3
    assert 0 < found["emadeploy_inference_seconds_sum", "model=tiny"] < 60
    assert found["emadeploy_inference_seconds_count", "model=tiny.raw"] == 0
    assert found["emadeploy_requests_in_flight",] == 1  # this one
    assert found["emadeploy_places_taken", "model=tiny"] == 1
    assert found["emadeploy_places", "model=tiny"] == 5
    assert found["emadeploy_queue_depth", "model=tiny"] == 0
    buckets = [value for name, value in found.items() if name[:2] == ("emadeploy_request_seconds_bucket", "model=tiny")]
    assert len(buckets) == len(BOUNDS) + 1
    assert buckets == sorted(buckets)


def test_what_is_no_inference_is_not_counted_as_one(open_site: Open, make_artifact: Callable[..., Path]) -> None:
    site = open_site(make_artifact("infer"))
    assert site.ask("/v2/models/infer")[0] == 200
    assert site.post("/v2/models/infer/versions/1/infer", request())[0] == 200
    found = scrape(site)
    assert found["emadeploy_requests_total", "model=infer", "code=200"] == 2
    assert found["emadeploy_request_seconds_count", "model=infer"] == 1


def test_a_histogram_counts_up_to_and_with_its_bounds() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.005, 0.0051, 10.0, 11.0):
        histogram.add(seconds)
    found = {labels.get("le", suffix): value for suffix, labels, value in histogram.samples({})}
    assert (found["0.005"], found["0.01"], found["10.0"], found["+Inf"]) == (2, 3, 4, 5)
    assert (found["_count"], found["_sum"]) == (5, pytest.approx(21.0101))


def test_dropped_requests_have_a_reason(open_site: Open) -> None:
    site = open_site(queue=1, timeout=0.3)
    release = site.occupy()
    place = site.worker.enter()
    assert site.post("/v2/models/tiny/infer", request())[0] == 503
    place.leave()
    assert site.post("/v2/models/tiny/infer", request())[0] == 504
    release.set()
    found = scrape(site)
    assert found["emadeploy_dropped_total", "model=tiny", "reason=full"] == 1
    assert found["emadeploy_dropped_total", "model=tiny", "reason=late"] == 1


def test_statistics_and_configuration_are_tritons(site: Site) -> None:
    """Triton's messages refuse fields and types that they do not have."""
    grpc = pytest.importorskip("tritonclient.grpc")
    json_format = pytest.importorskip("google.protobuf.json_format")
    for _ in range(2):
        assert site.post("/v2/models/tiny/infer", request())[0] == 200
    wait_until(lambda: site.worker.taken == 0)
    stats = json_format.ParseDict(
        json.loads(site.ask("/v2/models/tiny/stats")[2]), grpc.service_pb2.ModelStatisticsResponse()
    ).model_stats[0]
    assert (stats.name, stats.version, stats.inference_count, stats.execution_count) == ("tiny", "1", 2, 2)
    parts = stats.inference_stats
    assert (parts.success.count, parts.queue.count, parts.fail.count) == (2, 2, 0)
    steps = (parts.queue, parts.compute_input, parts.compute_infer, parts.compute_output)
    assert parts.success.ns == sum(step.ns for step in steps)
    assert min(step.ns for step in steps) > 0
    assert (stats.batch_stats[0].batch_size, stats.batch_stats[0].compute_infer.count) == (1, 2)
    assert stats.last_inference > 1e12

    config = json.loads(site.ask("/v2/models/tiny/config")[2])
    read = json_format.ParseDict(config, grpc.model_config_pb2.ModelConfig())
    assert [list(tensor.dims) for tensor in read.input] == [[-1, -1, 3]]
    assert [tensor.name for tensor in read.output] == ["semseg", "depth", "normals"]
