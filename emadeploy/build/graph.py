"""The record between the stages: an ONNX graph, and beside it in json what it computes and where it comes from.

    FOLDER/model.onnx        the graph, weights inside, every extent fixed; with Q/DQ where that is how it was quantised
    FOLDER/model.xml, .bin   the same graph, quantised, in OpenVINO's own form: where NNCF did it
    FOLDER/model.json        this record

Nodes, and initialisers with them, are named by the path of their layer in the network: ``heads.depth.0.conv1/Conv``.
`emadeploy.contract.branches` tells from a name which branch of the network a node belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.manifest import FileRecord, Manifest, file_digest
from emadeploy.contract.plain import to_plain
from emadeploy.contract.spec import ModelSpec, TensorSpec

SCHEMA = 2
GRAPH_NAME = "model.onnx"
IR_NAME = "model.xml"
IR_WEIGHTS_NAME = "model.bin"
RECORD_NAME = "model.json"


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX graph in ``folder``.

    - ``model``: the specification with the tasks and image size of the graph.
    - ``ctal``: the form of CTAL, ``None`` where the network has none. ``rewrites``: what was applied, in words.
    - ``basis``: for CTAL on a basis of kernels, how it was chosen.
    - ``branches``: the branches that its nodes belong to.
    - ``parity``: per task its agreement with PyTorch, as measured against ``reference``.
    - ``notes``: what a user of the graph must know.
    - ``source``: what it was made from: 'model', 'checkpoint', 'sha256', 'untrained'.
    - ``calibration``: how it was quantised, for the manifest; its 'kept' lists the nodes that stay in higher precision
      on purpose. ``None``: it was not.
    - ``learned``: the ranges that its checkpoint has learned for one target (`calibrate.learned`); ``None`` for most.
    - ``asked``: precision asked for per branch, 'int8', 'bf16', 'fp16' or 'fp32'; where it says nothing, the target's.
    """

    folder: Path
    model: ModelSpec
    opset: int
    ctal: str | None
    rewrites: tuple[str, ...]
    branches: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    frame_size: tuple[int, int] | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    basis: Mapping[str, Any] = field(default_factory=dict)
    learned: Mapping[str, Any] | None = None

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / GRAPH_NAME

    @property
    def ir_path(self) -> Path:
        """The quantised graph in OpenVINO's form, its weights beside it; there only where NNCF left it."""
        return self.folder / IR_NAME

    @property
    def kept(self) -> frozenset[str]:
        """The nodes that stay in higher precision on purpose."""
        return frozenset((self.calibration or {}).get("kept", ()))

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of its graph."""
        facts = {"opset": self.opset, "ctal": self.ctal, "rewrites": list(self.rewrites)}
        facts |= {"basis": dict(self.basis), "parity_reference": self.reference, "notes": list(self.notes)}
        return {key: value for key, value in facts.items() if value}

    def manifest(
        self, target: str, folder: Path, files: Sequence[str], *, precision: Mapping[str, str], **more: Any
    ) -> Manifest:
        """Return the manifest of the artifact in ``folder``, made of this graph for ``target``.

        ``files`` are its files, the one that the engine loads first; ``precision`` is what was obtained by branch.
        ``more`` are fields that differ between engines; ``versions`` are added to those of the graph.
        """
        facts: dict[str, Any] = {"asked": self.asked, **more}
        facts["versions"] = {**self.versions, **more.get("versions", {})}
        return Manifest(
            model=self.model,
            target=target,
            precision=precision,
            engine_file=files[0],
            files={name: FileRecord.of(folder / name) for name in files},
            inputs=self.inputs,
            outputs=self.outputs,
            frame_size=self.frame_size,
            graph=self.facts(),
            source=self.source,
            parity=self.parity,
            calibration=self.calibration,
            **facts,
        )

    def write(self) -> None:
        """Write the record beside the graph, which must be there: the record holds the digests of its files."""
        data = to_plain(self)
        del data["folder"]
        record = {"schema": SCHEMA, "sha256": _digests(self.folder), **data}
        (self.folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> OnnxGraph:
        """Read the record in ``folder``; raises ArtifactError where it is damaged, or that of another graph."""
        path = folder / RECORD_NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema", None) != SCHEMA:
                raise ArtifactError(f"{path} is of another version of emadeploy: export again")
            wanted, found = data.pop("sha256"), _digests(folder)
            for name in sorted({*wanted, *found}):
                if wanted.get(name) != found.get(name):
                    raise ArtifactError(f"{folder / name} differs from its digest in {RECORD_NAME}: export again")
            data["model"] = ModelSpec.from_dict(data["model"])
            for key in ("inputs", "outputs"):
                data[key] = tuple(TensorSpec.from_dict(tensor) for tensor in data[key])
            for key in ("rewrites", "branches", "notes"):
                data[key] = tuple(data[key])
            if data["frame_size"] is not None:
                data["frame_size"] = tuple(data["frame_size"])
            return cls(folder=folder, **data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
            raise ArtifactError(f"{path} is not the record of a graph ({type(error).__name__}: {error})") from None


def _digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file of a graph; the ONNX graph must be there."""
    forms = [name for name in (IR_NAME, IR_WEIGHTS_NAME) if (folder / name).exists()]
    return {name: file_digest(folder / name) for name in (GRAPH_NAME, *forms)}
