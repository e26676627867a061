"""What to export: a checkpoint, a zoo model, or, where nothing is said, the newest of what is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emadeploy import nets, zoo
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.spec import InputSpec, ModelSpec
from emadeploy.nets.checkpoint import RECORD_NAME, Checkpoint
from emadeploy.nets.network import Network

RUNS = Path("runs")
_SEED = 0


@dataclass(frozen=True)
class Source:
    """A network to export: ``described`` in words, ``record`` as the manifest's 'source', ``notes`` for its user.

    ``learned``: the scales that its checkpoint has learned for one target (`Checkpoint.quantisation`), with its 'step'.
    """

    network: Network
    described: str
    record: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    learned: Mapping[str, Any] | None = None

    @property
    def spec(self) -> ModelSpec:
        """The specification, at the size asked for."""
        return self.network.spec


def open_source(name: str | None, *, size: tuple[int, int] | None = None, untrained: bool = False) -> Source:
    """Return the network that ``name`` says: a checkpoint's folder, a zoo model, or with ``untrained`` a model.yml.

    ``None``: the newest checkpoint under ``runs/``, else the zoo's demo model. ``size`` is another (height, width).

    Raises:
        SpecError: the name is unknown, the size is no multiple of 32, or the model has no weights to export.
        ArtifactError: the checkpoint is damaged or foreign.
    """
    if untrained:
        return _random(zoo.DEMO_MODEL if name is None else name, size)
    if name is None:
        newest = newest_checkpoint()
        return _from_zoo(zoo.DEMO_MODEL, size) if newest is None else _from_checkpoint(newest, str(newest), size)
    folder = Path(name)
    # A zoo name stays one where a folder of that name lies about, unless that is a checkpoint.
    if (folder / RECORD_NAME).is_file() or (folder.exists() and name not in zoo.names()):
        return _from_checkpoint(folder, name, size)
    return _from_zoo(name, size)


def newest_checkpoint(runs: Path = RUNS) -> Path | None:
    """Return the checkpoint of the run that was saved last, its `best` if it has one; ``None`` where there is none."""
    records = list(runs.glob(f"*/*/{RECORD_NAME}")) + list(runs.glob(f"*/{RECORD_NAME}"))
    if not records:
        return None
    newest = max(records, key=lambda path: path.stat().st_mtime).parent
    best = newest.with_name("best")
    return best if newest.name == "last" and (best / RECORD_NAME).is_file() else newest


def _from_checkpoint(folder: Path, described: str, size: tuple[int, int] | None) -> Source:
    if not (folder / RECORD_NAME).is_file():
        inside = [str(folder / name) for name in ("best", "last") if (folder / name / RECORD_NAME).is_file()]
        if inside:
            raise ArtifactError(f"{folder} is a run, not a checkpoint; it holds {' and '.join(inside)}")
    checkpoint = nets.read_checkpoint(folder)
    resized_input = _resized(checkpoint.spec, size).input
    network = checkpoint.model(size=resized_input.size)
    learned = checkpoint.quantisation()
    return Source(
        network,
        f"{described} (model {checkpoint.spec.name}, step {checkpoint.step})",
        {
            "model": checkpoint.spec.name,
            "checkpoint": described,
            "sha256": checkpoint.digest,
            "step": checkpoint.step,
            "untrained": False,
        },
        _size_note(checkpoint, resized_input) + _learned_note(learned),
        None if learned is None else {**learned, "step": checkpoint.step},
    )


def _from_zoo(name: str, size: tuple[int, int] | None) -> Source:
    if name not in zoo.names():
        raise SpecError(
            f"{name!r} is neither a folder nor a model; give a checkpoint such as runs/NAME/best, "
            f"or one of {', '.join(zoo.names())}"
        )
    folder = zoo.weights(name)
    if folder is None:
        raise SpecError(
            f"model {name!r} comes without weights: train it (emadeploy train --model {name} --data DATA), import the "
            f"authors' (emadeploy import FILE --model {name} -o DIR), or use --untrained for its speed alone"
        )
    return _from_checkpoint(folder, f"zoo model {name}", size)


def _random(name: str, size: tuple[int, int] | None) -> Source:
    if (Path(name) / RECORD_NAME).is_file():
        raise SpecError(f"{name} is a checkpoint, which has weights; --untrained takes a zoo model or a model.yml")
    spec = _resized(zoo.load_spec(name), size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = nets.build(spec)
    record = {"model": spec.name, "untrained": True, "seed": _SEED}
    return Source(network, f"{spec.name}, untrained", record, ("random weights: good for its speed alone",))


def _resized(spec: ModelSpec, size: tuple[int, int] | None) -> ModelSpec:
    if size is None:
        return spec
    height, width = size
    return replace(spec, input=replace(spec.input, height=height, width=width))


def _size_note(checkpoint: Checkpoint, wanted: InputSpec) -> tuple[str, ...]:
    trained = checkpoint.spec.input
    if wanted.size == trained.size:
        return ()
    return (
        f"trained at {trained.height}x{trained.width}, exported at {wanted.height}x{wanted.width}: "
        "accuracy to be measured",
    )


def _learned_note(learned: Mapping[str, Any] | None) -> tuple[str, ...]:
    if learned is None:
        return ()
    return (f"fine-tuned for {learned['target']}: other targets take its weights, and calibrate their own ranges",)
