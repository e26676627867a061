"""CTAL on a basis of kernels, through the whole stage."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.preprocess import Float32, preprocess
from emadeploy.export.basis_choice import DEFAULT_BOUND
from emadeploy.export.parity import structured_frame
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, check_form, export_graph
from emadeploy.nets.network import Network

TASKS = ("semseg", "depth")


@pytest.fixture(scope="module")
def network(make_network: Callable[..., Network]) -> Network:
    return make_network("emanet", TASKS)


@pytest.fixture(scope="module")
def frames(network: Network) -> list[Float32]:
    spec = network.spec.input
    return [preprocess(structured_frame(spec.size, seed=seed), spec) for seed in range(4)]


def export(network: Network, folder: Path, wanted: Wanted, frames: list[Float32] | None) -> OnnxGraph:
    source = Source(network, "a test", {"untrained": False})
    return export_graph(source, wanted, folder, frames=frames, report=lambda line: None, compared=1)


def test_a_graph_of_one_kernel_is_near_and_says_how_near(
    network: Network, frames: list[Float32], tmp_path: Path
) -> None:
    graph = export(network, tmp_path, Wanted(ctal="basis:1"), frames)
    [facts] = graph.facts()["basis"].values()
    assert facts["ranks"] == dict.fromkeys(TASKS, 1)
    assert graph.ctal == "basis:1"
    assert "an approximation" in graph.reference
    # Random kernels on random features: what one kernel leaves out is seen, and small beside the map.
    for task in TASKS:
        assert 1e-4 < graph.parity[task]["raw_error"] < 0.5
    assert OnnxGraph.read(tmp_path).basis == graph.basis


def test_nine_kernels_are_the_exact_form(network: Network, frames: list[Float32], tmp_path: Path) -> None:
    graph = export(network, tmp_path, Wanted(ctal="basis:9"), frames)
    assert max(graph.parity[task]["raw_error"] for task in TASKS) < 1e-4


def test_a_stricter_bound_keeps_more_kernels(network: Network, frames: list[Float32], tmp_path: Path) -> None:
    ranks = []
    for bound in (0.5, 1e-3):
        graph = export(network, tmp_path / str(bound), Wanted(ctal="basis", basis_error=bound), frames)
        [facts] = graph.basis.values()
        assert max(facts["attended_error"].values()) <= bound
        ranks.append(sum(facts["ranks"].values()))
    assert ranks[0] < ranks[1]


def test_a_basis_needs_frames(network: Network, frames: list[Float32], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="at least two calibration frames"):
        export(network, tmp_path, Wanted(ctal="basis"), None)
    with pytest.raises(CalibrationError, match="not finite"):
        export(network, tmp_path, Wanted(ctal="basis"), [np.full_like(frames[0], np.nan)] * 4)


@pytest.mark.parametrize("form", ["basis:0", "basis:10", "basis:", "basis:two", "bases", "Exact"])
def test_forms_that_make_no_sense(form: str) -> None:
    with pytest.raises(SpecError, match="unknown; known: exact, affinity, basis"):
        check_form(form)
    check_form("basis:3")


@pytest.mark.parametrize("error", [0.0, -0.02, 1.0, 2.0, math.nan, math.inf])
def test_errors_that_no_basis_can_keep(error: float) -> None:
    with pytest.raises(SpecError, match=r"--basis-error .* is not above 0 and below 100 percent of an attended map"):
        Wanted(ctal="basis", basis_error=error)


@pytest.mark.parametrize("form", [None, "exact", "affinity", "basis:3"])
def test_an_error_is_for_a_basis_that_is_chosen_by_it(form: str | None) -> None:
    with pytest.raises(SpecError, match=rf"--basis-error 5: the form of CTAL is {form or 'exact'}; .*leave it out"):
        Wanted(ctal=form, basis_error=0.05)
    assert Wanted(ctal=form).bound == DEFAULT_BOUND
    assert Wanted(ctal="basis", basis_error=0.05).bound == 0.05


def test_a_network_without_ctal_has_no_basis(
    make_network: Callable[..., Network], frames: list[Float32], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="without CTAL"):
        export(make_network("hps", TASKS), tmp_path, Wanted(ctal="basis"), frames)
