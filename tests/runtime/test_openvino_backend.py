"""The OpenVINO backend: answers, memory, cache, frames in flight, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")
from networks import SIZE, quantise, tiny_graph

from emadeploy import load
from emadeploy.build.openvino import build
from emadeploy.contract.errors import ArtifactError, BackendMissing, DeviceError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec
from emadeploy.runtime.backends import opener
from emadeploy.runtime.backends import openvino as backend
from emadeploy.runtime.backends.openvino import CORE

FRAMES = [np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in range(6)]
IMAGES = [preprocess(frame, InputSpec(*SIZE)) for frame in FRAMES]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture(scope="module", params=["openvino-fp32", "openvino-int8"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    graph = tiny_graph(folder / "graph", calibration={"recipe": "by hand"})
    quantise(graph, IMAGES[0])
    build(graph, folder / "artifact", request.param)
    return folder / "artifact"


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    build(tiny_graph(folder / "graph"), folder / "artifact", "openvino-fp32")
    return folder / "artifact"


@pytest.fixture
def altered(fp32: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the artifact with its manifest altered and its records true to its files."""

    def alter(*, xml: str | None = None, **fields: Any) -> Path:
        copy = tmp_path / "altered"
        copy.mkdir()
        for path in fp32.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        if xml is not None:
            (copy / "model.xml").write_text(xml)
        data = json.loads((copy / "manifest.json").read_text()) | fields
        files = {name: FileRecord.of(copy / name) for name in ("model.xml", "model.bin")}
        data["files"] = {name: vars(record) for name, record in files.items()}
        (copy / "manifest.json").write_text(json.dumps(data))
        return copy

    return alter


def open_session(artifact: Path, device: str | None = None) -> backend.OpenVinoSession:
    return backend.open_session(artifact, Manifest.read(artifact), threads=1, device=device)


def test_what_runs_where(artifact: Path) -> None:
    with load(artifact, threads=1) as perception:
        facts = perception.describe()
    assert facts["engine"] == "openvino"
    assert (facts["device"], facts["threads"], facts["streams"], facts["rest"]) == ("cpu", 1, 1, "fp32")
    assert str(facts["version"]).startswith("20")


def test_answers_belong_to_the_caller_and_come_without_a_copy(artifact: Path) -> None:
    session = open_session(artifact)
    first = session.run({"image": IMAGES[0]})["depth"]
    kept = first.copy()
    second = session.run({"image": IMAGES[1]})["depth"]
    assert first.base is None
    assert first.flags.owndata
    assert first.flags.writeable
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(session.run({"image": IMAGES[0]})["depth"], first)


def test_inputs_are_neither_copied_nor_altered_and_may_be_read_only(artifact: Path) -> None:
    session = open_session(artifact)
    image = IMAGES[0].copy()
    wanted = session.run({"image": image})["depth"]
    np.testing.assert_array_equal(image, IMAGES[0])
    assert session._slot is not None
    assert np.shares_memory(session._slot._request.get_input_tensor(0).data, image)
    image.flags.writeable = False
    np.testing.assert_array_equal(session.run({"image": image})["depth"], wanted)


def test_the_answers_outlive_the_session(artifact: Path) -> None:
    session = open_session(artifact)
    depth = session.run({"image": IMAGES[0]})["depth"]
    kept = depth.copy()
    session.close()
    session.close()
    np.testing.assert_array_equal(depth, kept)


def test_frames_in_flight_are_answered_as_one_by_one(artifact: Path) -> None:
    session = open_session(artifact)
    wanted = [session.run({"image": image})["depth"] for image in IMAGES]
    for depth in (1, 2, 4):
        with session.queue(depth) as queue:
            found = [job.result()["depth"] for job in queue.map({"image": image} for image in IMAGES)]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_frame_that_openvino_refuses_is_an_error_of_that_frame_alone(fp32: Path) -> None:
    session = open_session(fp32)
    wanted = session.run({"image": IMAGES[0]})["depth"]
    for bad in (IMAGES[0][:, :, :-1], IMAGES[0].astype(np.float64)):
        with pytest.raises(DeviceError, match=r"OpenVINO .* failed while running: ."):
            session.run({"image": bad})
        with session.queue() as queue:
            good = queue.submit({"image": IMAGES[0]})
            with pytest.raises(DeviceError):
                queue.submit({"image": bad})
            after = queue.submit({"image": IMAGES[0]})
        np.testing.assert_array_equal(good.result()["depth"], wanted)
        np.testing.assert_array_equal(after.result()["depth"], wanted)
    np.testing.assert_array_equal(session.run({"image": IMAGES[0]})["depth"], wanted)


def test_a_queue_outlives_its_session(fp32: Path) -> None:
    session = open_session(fp32)
    wanted = session.run({"image": IMAGES[0]})["depth"]
    queue = session.queue()
    session.close()
    np.testing.assert_array_equal(queue.submit({"image": IMAGES[0]}).result()["depth"], wanted)
    queue.close()


def test_the_second_load_comes_from_the_cache_and_answers_the_same(artifact: Path, cache: Path) -> None:
    first, second = open_session(artifact), open_session(artifact)
    assert (first.describe()["loaded"], second.describe()["loaded"]) == ("graph", "cache")
    for key in ("rest", "threads", "streams"):
        assert first.describe()[key] == second.describe()[key]
    inputs = {"image": IMAGES[0]}
    np.testing.assert_array_equal(first.run(inputs)["depth"], second.run(inputs)["depth"])
    assert len(list(cache.iterdir())) == 1


def test_the_cache_is_keyed_by_what_the_network_depends_on(
    fp32: Path, altered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(artifact: Path, threads: int = 1) -> object:
        return backend.open_session(artifact, Manifest.read(artifact), threads=threads, device=None).describe()[
            "loaded"
        ]

    assert loaded(fp32) == "graph"
    assert loaded(fp32, threads=2) == "graph"
    assert loaded(fp32) == loaded(fp32, threads=2) == "cache"
    other = altered(xml=(fp32 / "model.xml").read_text() + "\n")
    assert loaded(other) == "graph"
    monkeypatch.setattr(backend, "cpu_model", lambda: "another CPU")
    assert loaded(fp32) == "graph"


@pytest.mark.parametrize("content", ["damaged", "foreign"])
def test_a_useless_blob_costs_nothing_but_time(fp32: Path, cache: Path, content: str) -> None:
    wanted = open_session(fp32).run({"image": IMAGES[0]})["depth"]
    (path,) = cache.iterdir()
    if content == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        backend.BlobCache("openvino").write(path.stem, b"whole, but no network of OpenVINO")
    session = open_session(fp32)
    assert session.describe()["loaded"] == "graph"
    np.testing.assert_array_equal(session.run({"image": IMAGES[0]})["depth"], wanted)
    assert open_session(fp32).describe()["loaded"] == "cache"


def test_a_cache_that_cannot_be_written(fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert open_session(fp32).describe()["loaded"] == "graph"


@pytest.mark.parametrize("device", ["gpu", "npu", "tpu", "gpu.7"])
def test_a_device_that_is_not_here(fp32: Path, device: str) -> None:
    if any(name.startswith(device) for name in backend.capabilities()):
        pytest.skip(f"this machine has {device}")
    with pytest.raises(DeviceError, match=rf"device '{device}': OpenVINO .* finds .*cpu.* here"):
        load(fp32, device=device)


class LeanCore:
    """The core on a machine that has float32 alone."""

    def get_property(self, device: str, name: str) -> Any:
        return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else CORE.get_property(device, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(CORE, name)


@pytest.mark.parametrize(
    "fields", [{"target": "openvino-bf16", "rest": "bf16"}, {"target": "openvino-int8"}, {"rest": "bf16"}]
)
def test_a_machine_that_lacks_what_the_artifact_needs(
    altered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    artifact = altered(**fields)
    monkeypatch.setattr(backend, "CORE", LeanCore())
    with pytest.raises(DeviceError, match=r"device 'cpu' \(.*\) has no (int8|bf16); OpenVINO .* finds FP32 there"):
        load(artifact)


def test_a_machine_that_falls_back_to_float(altered: Callable[..., Path]) -> None:
    """The network is fp32; its manifest says that it ran in int8 where it was built."""
    audit = {"machine": "a CPU with VNNI", "branches": {}, "total": {"compute": {"int8": 3, "fp32": 2}}}
    with pytest.raises(
        DeviceError,
        match=r"runs 5 layers in fp32 on this machine .*, where 2 did on a CPU with VNNI, .* built for int8: export it",
    ):
        load(altered(target="openvino-int8", audit=audit))


def test_a_network_that_is_not_one(altered: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=r"model\.xml: OpenVINO .* cannot load it: ."):
        load(altered(xml="<net>"))


def test_a_network_that_is_not_its_manifest_s(altered: Callable[..., Path], fp32: Path) -> None:
    xml = (fp32 / "model.xml").read_text().replace('names="depth"', 'names="edges"')
    with pytest.raises(ArtifactError, match=r"outputs are edges float32 \(1, 1, 16, 32\); the manifest says depth"):
        load(altered(xml=xml))


def test_without_openvino_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "emadeploy.runtime.backends.openvino")
    with pytest.raises(
        BackendMissing, match=r"engine 'openvino' needs openvino, .*pip install 'emadeploy\[openvino\]'"
    ):
        opener("openvino")


def test_capabilities_are_named_as_targets_are() -> None:
    found = backend.capabilities()
    assert "fp32" in found["cpu"]
    assert set(found["cpu"]) <= {"fp32", "bf16", "fp16", "int8"}


EDGE = """
import sys, importlib.abc
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root not in {"numpy", "emadeploy", "openvino", "openvino_telemetry"} and root not in sys.stdlib_module_names:
            raise ImportError(f"the wall: {name}")
sys.meta_path.insert(0, Wall())
import numpy as np
from emadeploy import load
print(load(sys.argv[1], threads=1)(np.zeros((10, 20, 3), np.uint8)).depth.shape)
"""


def test_the_edge_needs_numpy_and_openvino_alone(fp32: Path) -> None:
    argv = [sys.executable, "-c", EDGE, str(fp32)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(10, 20)"


def test_the_wall_around_the_edge_is_one(fp32: Path) -> None:
    argv = [sys.executable, "-c", EDGE.replace("from emadeploy import load", "import onnx"), str(fp32)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "the wall: onnx" in done.stderr


SIGNALLED = """
import os, signal, sys, threading
from emadeploy import load
first, second = load(sys.argv[1]), load(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first.close()
ending = threading.Thread(target=second.close)
ending.start()
ending.join()
del first, second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_engines_have_ended(fp32: Path) -> None:
    """In the order in which they began, and in another thread: where OpenVINO itself leaves no stack for them."""
    argv = [sys.executable, "-c", SIGNALLED, str(fp32)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
