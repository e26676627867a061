"""A graph shown to the parser that is installed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from networks import tiny_graph

from emadeploy.build import tensorrt_parser
from emadeploy.build.tensorrt import build
from emadeploy.build.tensorrt_parser import PARSER, parsed_by
from emadeploy.contract.errors import BackendMissing, BuildError, DeviceError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.trt.library import Library


def test_it_says_who_has_parsed_the_graph(installed: Callable[..., Library], tmp_path: Path) -> None:
    installed("tensorrt_rtx-1.7", gpu=False)
    assert parsed_by(tiny_graph(tmp_path).path) == "TensorRT for RTX 1.7.1.116"


def test_what_it_refuses_is_an_error(installed: Callable[..., Library], tmp_path: Path) -> None:
    installed("tensorrt_rtx-1.7", refuses=("MatMul",))
    with pytest.raises(BuildError, match=r"does not take node 'ctal/MatMul_gram' \(MatMul\)"):
        parsed_by(tiny_graph(tmp_path).path)


def test_where_it_is_not_installed_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(engine: str) -> Library:
        raise BackendMissing(engine)

    monkeypatch.setattr(tensorrt_parser, "load_library", missing)
    assert parsed_by(tiny_graph(tmp_path).path) is None


def test_where_it_does_not_start_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(engine: str) -> Library:
        raise DeviceError("no driver")

    monkeypatch.setattr(tensorrt_parser, "load_library", stuck)
    assert parsed_by(tiny_graph(tmp_path).path) is None


def test_the_portable_artifact_says_who_has_parsed_it(installed: Callable[..., Library], tmp_path: Path) -> None:
    installed("tensorrt_rtx-1.7", gpu=False)
    manifest = build(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "trt-fp32")
    assert manifest.versions[PARSER] == "TensorRT for RTX 1.7.1.116"
    assert Manifest.read(tmp_path / "artifact").versions[PARSER] == manifest.versions[PARSER]


def test_what_the_parser_refuses_is_no_artifact(installed: Callable[..., Library], tmp_path: Path) -> None:
    installed("tensorrt_rtx-1.7", refuses=("MatMul",))
    with pytest.raises(BuildError, match="does not take node"):
        build(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "trt-fp32")
    assert not (tmp_path / "artifact").exists()
