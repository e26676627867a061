"""Checkpoints of networks that were fine-tuned with fake quantisation: what they hold, and damage that is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from torch import nn

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.nets.quantised import QUANTISATION, QuantisedNetwork, from_json

LEARNED = {"target": "onnxruntime-int8", "ranges": {"image": [0.0, 1.0]}}


class Rounding(QuantisedNetwork):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def learned(self) -> dict[str, Any]:
        return LEARNED


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    spec = ModelSpec("tiny", "hps", (TaskSpec("depth"),), InputSpec(32, 64))
    network = nn.Linear(2, 3)  # what is in it does not matter here
    nets.save_checkpoint(tmp_path, Rounding(network), spec, step=4)
    return tmp_path


def test_weights_are_the_networks_own_and_what_was_learned_lies_beside(saved: Path) -> None:
    found = nets.read_checkpoint(saved)
    assert set(found.state_dict()) == {"weight", "bias"}
    assert found.quantisation() == LEARNED
    assert QUANTISATION in json.loads((saved / "checkpoint.json").read_text())["files"]


def test_saving_without_rounding_leaves_nothing_of_it(saved: Path) -> None:
    nets.save_checkpoint(saved, nn.Linear(2, 3), nets.read_checkpoint(saved).spec)  # type: ignore[arg-type]
    assert nets.read_checkpoint(saved).quantisation() is None
    assert not list(saved.glob("quantisation*"))


def test_altered_scales_are_refused(saved: Path) -> None:
    [path] = saved.glob("quantisation-*.json")
    path.write_text(path.read_text().replace("1.0", "9.0"))
    with pytest.raises(ArtifactError, match="differs from its digest"):
        nets.read_checkpoint(saved).quantisation()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not the record of learned scales"), (b"[]", "is not the record"), (b'{"schema": 9}', "has schema 9")],
)
def test_what_is_no_record_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"here {message}"):
        from_json(content, "here")
