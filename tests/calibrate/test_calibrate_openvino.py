"""OpenVINO's form: what NNCF and the passes after it make, what the engine runs in, what is kept, cached, refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nncf")
import onnx
import openvino as ov
from networks import CONVOLUTIONS, PRODUCT, SIZE, tiny_graph

from emadeploy import runtime
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.openvino import build
from emadeploy.calibrate import fakes
from emadeploy.calibrate import openvino as for_openvino
from emadeploy.calibrate import recipe as recipes
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.openvino import quantize
from emadeploy.calibrate.recipe import Recipe, load_recipe
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.spec import InputSpec
from emadeploy.evaluate.parity import raw_error
from emadeploy.runtime.machine import cpu_flags

GRAM = "ctal/MatMul_gram"
#: The same on whatever machine the tests run.
RECIPE = replace(load_recipe("openvino-int8"), types="U8S8-reduced", rest="fp32")


@pytest.fixture
def tiny(tmp_path: Path) -> OnnxGraph:
    return signed(tiny_graph(tmp_path / "graph"))


def signed(graph: OnnxGraph) -> OnnxGraph:
    """Take out the ReLU before the attention, whose features have signs in a real network."""
    model = onnx.load(graph.path)
    relu = next(node for node in model.graph.node if node.name == "backbone.conv2/Relu")
    convolution = next(node for node in model.graph.node if node.name == CONVOLUTIONS[1])
    convolution.output[0] = relu.output[0]
    model.graph.node.remove(relu)
    onnx.save(model, graph.path)
    graph.write()
    return graph


@pytest.fixture
def small_frames() -> Callable[..., CalibrationFrames]:
    """Return a function that makes noise of the tiny graph's size: ``count`` frames, others with another ``seed``."""

    def make(count: int = 16, seed: int = 0) -> CalibrationFrames:
        rng = np.random.default_rng(seed)
        noise = [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(count)]
        return CalibrationFrames(noise, InputSpec(*SIZE), f"noise:{seed}")

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one whenever NNCF runs."""
    seen: list[int] = []
    original = for_openvino.nncf.quantize

    def counted(*arguments: Any, **named: Any) -> Any:
        seen.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(for_openvino.nncf, "quantize", counted)
    return seen


def audited(graph: OnnxGraph, output: Path) -> dict[str, dict[str, int]]:
    """Build, and return per branch how many convolutions and products ran in which precision."""
    audit = build(graph, output, "openvino-int8").audit
    assert audit is not None
    return {branch: shares["compute"] for branch, shares in audit["branches"].items() if shares["compute"]}


def test_everything_runs_in_int8_and_the_record_says_how(tiny, small_frames, tmp_path):
    frames = small_frames()
    seen: list[tuple[int, int]] = []
    graph = quantize(tiny, frames, RECIPE, tmp_path / "int8", progress=lambda done, total: seen.append((done, total)))
    assert OnnxGraph.read(graph.folder) == graph
    assert (seen[0], seen[-1]) == ((1, 16), (16, 16))
    assert graph.calibration == {
        "recipe": recipes.to_plain(RECIPE),
        "recipe_sha256": RECIPE.digest(),
        "frames": frames.facts(),
        "types": "U8S8-reduced",
        "rest": "fp32",
        "kept": [],
    }
    assert {"nncf", "openvino"} <= graph.versions.keys()
    assert audited(graph, tmp_path / "out") == {
        "backbone": {"int8": 2},
        "ctal": {"int8": 2},
        "heads.depth": {"int8": 1},
    }


def test_kept_layers_run_in_float_and_the_rest_in_int8(tiny, small_frames, tmp_path):
    graph = quantize(tiny, small_frames(), RECIPE, tmp_path / "int8", keep=[CONVOLUTIONS[1], PRODUCT])
    assert graph.kept == {CONVOLUTIONS[1], PRODUCT}
    found = audited(graph, tmp_path / "out")
    assert found == {"backbone": {"int8": 1, "fp32": 1}, "ctal": {"int8": 1, "fp32": 1}, "heads.depth": {"int8": 1}}


def test_keeping_all_gives_the_answers_in_float(tiny, small_frames, tmp_path):
    graph = quantize(tiny, small_frames(), RECIPE, tmp_path / "int8", keep=[*CONVOLUTIONS, GRAM, PRODUCT])
    build(graph, tmp_path / "out", "openvino-int8")
    build(tiny, tmp_path / "float", "openvino-fp32")
    [frame] = list(small_frames(1, seed=5).raw())
    with runtime.load(tmp_path / "out") as kept, runtime.load(tmp_path / "float") as float_:
        assert raw_error(kept.raw(frame)["depth"], float_.raw(frame)["depth"]) < 1e-5


@pytest.mark.parametrize(("flags", "rest"), [({"avx512_bf16"}, "bf16"), ({"avx2"}, "fp32")])
def test_kept_layers_run_in_bf16_where_the_cpu_has_it(tiny, small_frames, tmp_path, monkeypatch, flags, rest):
    if rest == "bf16" and not {"avx512_bf16", "amx_bf16"} & set(cpu_flags()):
        pytest.skip("this CPU has no bf16")
    monkeypatch.setattr(recipes, "cpu_flags", lambda: flags)
    recipe = replace(RECIPE, rest="auto")
    graph = quantize(tiny, small_frames(), recipe, tmp_path / "int8", keep=[CONVOLUTIONS[1]])
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert (manifest.rest, manifest.calibration["rest"]) == (rest, rest)
    assert manifest.audit["branches"]["backbone"]["compute"] == {"int8": 1, rest: 1}
    with runtime.load(tmp_path / "out") as perception:
        assert perception.describe()["rest"] == rest


def test_where_nothing_is_kept_no_bf16_is_asked_of_the_cpu(tiny, small_frames, tmp_path):
    graph = quantize(tiny, small_frames(), replace(RECIPE, rest="bf16"), tmp_path / "int8")
    assert graph.calibration["rest"] == "fp32"


def test_ranges_are_found_once_whatever_is_kept(tiny, small_frames, tmp_path, calls):
    quantize(tiny, small_frames(), RECIPE, tmp_path / "one")
    quantize(tiny, small_frames(), RECIPE, tmp_path / "two", keep=[PRODUCT])
    again = quantize(tiny, small_frames(), RECIPE, tmp_path / "three")
    assert calls == [1]
    weights = again.ir_path.with_suffix(".bin").read_bytes()
    assert weights == (tmp_path / "one" / "model.bin").read_bytes()
    assert weights != (tmp_path / "two" / "model.bin").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"types": "U8S8"},
        {"rest": "bf16"},
        {"method": "percentile", "percentile": 99.9},
    ],
    ids=["types", "rest", "method"],
)
def test_ranges_of_another_recipe_are_found_anew(tiny, small_frames, tmp_path, calls, changes):
    quantize(tiny, small_frames(), RECIPE, tmp_path / "one")
    quantize(tiny, small_frames(), replace(RECIPE, **changes), tmp_path / "two")
    assert calls == [1, 1]


def test_ranges_of_other_frames_or_of_another_graph_are_found_anew(tiny, small_frames, tmp_path, calls):
    quantize(tiny, small_frames(), RECIPE, tmp_path / "one")
    quantize(tiny, small_frames(seed=1), RECIPE, tmp_path / "two")
    assert calls == [1, 1]
    other = signed(tiny_graph(tmp_path / "other"))
    data = other.path.read_bytes()
    other.path.write_bytes(data.replace(b"tiny", b"else", 1))
    quantize(other, small_frames(), RECIPE, tmp_path / "three")
    assert calls == [1, 1, 1]


def test_a_damaged_cache_is_named(tiny, small_frames, tmp_path):
    quantize(tiny, small_frames(), RECIPE, tmp_path / "one")
    [kept] = (tmp_path / "cache" / "calibration").glob("openvino-*/model.xml")
    kept.write_text("<net")
    with pytest.raises(CalibrationError, match="from an earlier calibration and is damaged: delete"):
        quantize(tiny, small_frames(), RECIPE, tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_all_eight_bits_of_the_first_layer_where_nothing_overflows(tiny, small_frames, tmp_path):
    def largest(types: str) -> int:
        graph = quantize(tiny, small_frames(), replace(RECIPE, types=types), tmp_path / types)
        first = fakes.compute_nodes(ov.Core().read_model(graph.ir_path))[CONVOLUTIONS[0]]
        node = first.input_value(1).get_node()
        while node.get_type_name() != "Constant":
            node = node.input_value(0).get_node()
        return int(np.abs(node.get_data().astype(np.int32)).max())

    assert largest("U8S8") > 120
    assert largest("U8S8-reduced") <= 64


def test_too_few_frames_are_refused_before_anything_is_done(tiny, small_frames, tmp_path, calls):
    with pytest.raises(CalibrationError, match="found 3 frames, needed at least 16"):
        quantize(tiny, small_frames(3), RECIPE, tmp_path / "int8")
    assert (calls, (tmp_path / "int8").exists()) == ([], False)


def test_unknown_layers_are_refused_and_nothing_is_written(tiny, small_frames, tmp_path):
    with pytest.raises(CalibrationError, match="no layer of the graph: nowhere/Conv"):
        quantize(tiny, small_frames(), RECIPE, tmp_path / "int8", keep=["nowhere/Conv"])
    assert not (tmp_path / "int8").exists()


def test_frames_of_another_size_are_refused(tiny, make_frames, tmp_path):
    with pytest.raises(CalibrationError, match=r"a frame becomes \(1, 3, 64, 96\), and the graph takes"):
        quantize(tiny, make_frames(), RECIPE, tmp_path / "int8")


def test_a_failure_of_nncf_is_told_in_a_line_and_leaves_no_cache(tiny, small_frames, tmp_path, monkeypatch):
    def fail(*_arguments: Any, **_named: Any) -> None:
        raise RuntimeError("no such layer\nand where it was")

    monkeypatch.setattr(for_openvino.nncf, "quantize", fail)
    with pytest.raises(CalibrationError, match=r"nncf .* cannot quantise .*model\.onnx: no such layer$"):
        quantize(tiny, small_frames(), RECIPE, tmp_path / "int8")
    assert not (tmp_path / "cache").exists()


def test_places_that_cannot_be_written_are_named(tiny, small_frames, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match=r"the graph cannot be written to .*file"):
        quantize(tiny, small_frames(), RECIPE, tmp_path / "file")
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(CalibrationError, match=r"cannot be written: .*EMADEPLOY_CACHE chooses the place"):
        quantize(tiny, small_frames(), RECIPE, tmp_path / "int8")


Made = Callable[..., OnnxGraph]


@pytest.fixture(scope="module")
def exported(make_network, frames, tmp_path_factory) -> Made:
    """Return a function that exports a shortened network for int8, once per arguments: tracing takes seconds."""
    from emadeploy.export.source import Source
    from emadeploy.export.stage import Wanted, export_graph

    done: dict[object, OnnxGraph] = {}

    def make(network: str = "emanet", ctal: str | None = None, **wanted: Any) -> OnnxGraph:
        key = (network, ctal, *wanted.items())
        if key not in done:
            source = Source(make_network(network), "a test", {"model": "tiny", "untrained": True})
            asked = Wanted(ctal=ctal, low_precision=True, **wanted)
            folder: Path = tmp_path_factory.mktemp("exported")
            done[key] = export_graph(source, asked, folder, frames=frames, report=lambda _: None, compared=1)
        return done[key]

    return make


def int8(graph: OnnxGraph, frames: CalibrationFrames, tmp_path: Path, recipe: Recipe = RECIPE) -> OnnxGraph:
    return quantize(graph, frames, recipe, tmp_path / "int8")


@pytest.mark.parametrize("ctal", ["exact", "basis:2"])
def test_both_products_of_ctal_run_in_int8(exported, frames, make_frames, tmp_path, ctal):
    plain = exported(ctal=ctal)
    graph = int8(plain, frames, tmp_path)
    depthwise = fakes.depthwise_nodes(ov.Core().read_model(plain.path))
    assert graph.kept == depthwise
    assert bool(depthwise) == (ctal != "exact")
    products = [name for name in fakes.compute_nodes(ov.Core().read_model(plain.path)) if "/MatMul" in name]
    assert {name.split("spatial_att.")[1].split(".")[0] for name in products} >= {"gather", "spread"}
    found = audited(graph, tmp_path / "out")
    assert found["ctal"]["int8"] >= len(products)
    assert sum(found["ctal"].get(name, 0) for name in ("fp32", "bf16")) == len(depthwise)
    assert all(set(counts) == {"int8"} for branch, counts in found.items() if branch != "ctal")
    build(replace(plain, calibration=None), tmp_path / "float", "openvino-fp32")
    with runtime.load(tmp_path / "out") as candidate, runtime.load(tmp_path / "float") as reference:
        for frame in make_frames(2, seed=9).raw():
            found_maps, wanted = candidate.raw(frame), reference.raw(frame)
            assert all(1e-4 < raw_error(found_maps[task], wanted[task]) < 0.25 for task in wanted)


def test_the_features_of_exact_ctal_are_rounded_before_they_are_shifted(exported, frames, tmp_path):
    model = ov.Core().read_model(int8(exported(ctal="exact"), frames, tmp_path).ir_path)
    pads = [node for node in model.get_ops() if node.get_type_name() == "Pad"]
    assert pads
    for pad in pads:
        assert pad.input_value(0).get_node().get_type_name() == "FakeQuantize"
    # Three shifts by rows, and three by columns of each, with no rounding between them.
    by_rows = [target.get_node() for pad in pads for target in pad.output(0).get_target_inputs()]
    by_columns = [target.get_node() for node in by_rows for target in node.output(0).get_target_inputs()]
    assert len(by_columns) == 9
    assert "FakeQuantize" not in {node.get_type_name() for node in (*by_rows, *by_columns)}
    assert fakes.hoist(model) == 0


@pytest.mark.parametrize(
    ("network", "wanted"),
    [("hps", {}), ("m_emanet", {}), ("emanet", {"tasks": ("depth",)})],
    ids=["hps", "m_emanet", "a subset of tasks"],
)
def test_other_networks(exported, frames, tmp_path, network, wanted):
    graph = int8(exported(network, **wanted), frames, tmp_path)
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert ("ctal" in manifest.precision) == (network != "hps")
    assert set(manifest.precision.values()) == {"int8"}
    with runtime.load(tmp_path / "out") as perception:
        answers = perception.raw(next(frames.raw()))
    assert set(answers) == set(wanted.get("tasks", ("semseg", "depth", "normals")))


def test_a_graph_that_takes_frames_and_decodes(exported, frames, make_frames, tmp_path):
    graph = int8(exported(frame_size=(64, 96)), frames, tmp_path)
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert [(tensor.name, tensor.dtype) for tensor in manifest.inputs] == [("frame", "uint8")]
    assert not any(name.startswith(("frame", "decode")) for name in graph.kept)
    build(exported(), tmp_path / "float", "openvino-fp32")
    with runtime.load(tmp_path / "out") as decoded, runtime.load(tmp_path / "float") as reference:
        for frame in make_frames(2, seed=9).raw():
            found, wanted = decoded(frame), reference(frame)
            assert np.mean(found.semseg == wanted.semseg) > 0.8
            # Half of what this random network answers is clamped at 0, and no base for a relative error.
            assert np.corrcoef(found.depth.ravel(), wanted.depth.ravel())[0, 1] > 0.9
