"""The stage: from a network to the record of its graph, and on to the artifact of a target."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from emadeploy import __version__
from emadeploy.build import builder, targets
from emadeploy.build.folder import check_replaceable, scratch
from emadeploy.build.graph import OnnxGraph, branch_of
from emadeploy.contract.errors import BuildError, ExportError, SpecError
from emadeploy.contract.manifest import TARGETS, parse_target
from emadeploy.contract.spec import CTAL_FORMS, ModelSpec, TensorSpec
from emadeploy.export import deploy, trace
from emadeploy.export.parity import FRAMES, with_parity
from emadeploy.export.source import Source, open_source
from emadeploy.nets.network import Network
from emadeploy.runtime.machine import cpu_model

Report = Callable[[str], None]

_EXPORTED = tuple(target for target in targets() if TARGETS[target][1] != "int8")
"""The targets that need no calibration, which this version does not do yet."""

_DTYPES = {int(onnx.TensorProto.FLOAT): "float32", int(onnx.TensorProto.UINT8): "uint8"}
_LAYOUTS = {4: "BCHW", 3: "HWC", 2: "HW"}


@dataclass(frozen=True)
class Wanted:
    """What the graph shall be: form of CTAL (``None``: exact), tasks (``None``: all), frame size if it takes frames."""

    ctal: str | None = None
    tasks: tuple[str, ...] | None = None
    frame_size: tuple[int, int] | None = None


def make_artifact(
    name: str | None,
    target: str,
    output: Path | None,
    wanted: Wanted,
    *,
    size: tuple[int, int] | None = None,
    untrained: bool = False,
    report: Report = print,
) -> Path:
    """Export what ``name`` says (`source.open_source`) for ``target``, and return the artifact's folder.

    ``output`` is by default ``NAME.TARGET`` in the current directory. Raises any EmadeployError but CalibrationError;
    then nothing is left behind.
    """
    target = parse_target(target)
    if target not in _EXPORTED:
        raise BuildError(f"target {target!r} is not in this version; it builds {', '.join(_EXPORTED)}")
    engine = TARGETS[target][0]
    build = builder(engine)
    check_form(wanted.ctal)
    source = open_source(name, size=size, untrained=untrained)
    for note in source.notes:
        report(f"note: {note}")
    output = output or Path(f"{source.spec.name}.{target}")
    check_replaceable(output)
    with scratch(output) as folder:
        graph = export_graph(source, wanted, folder, report=report)
        start = time.perf_counter()
        report(f"building {target}")
        manifest = build(graph, output, target)
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    seconds, library = time.perf_counter() - start, f"{engine} {manifest.versions[engine]}"
    report(f"built {output} in {seconds:.1f} s ({library}), {megabytes:.1f} MB")
    return output


def export_graph(
    source: Source, wanted: Wanted, folder: Path, *, report: Report = print, frames: int = FRAMES
) -> OnnxGraph:
    """Write the graph of ``source`` and its record into ``folder``; return the record.

    The graph is compared with PyTorch on ``frames`` made frames (`parity`).

    Raises SpecError for an unknown task or form, ExportError where the graph cannot be made or computes something else.
    """
    start = time.perf_counter()
    report(f"exporting {source.described} (torch {torch.__version__}, onnx {onnx.__version__}, opset {trace.OPSET})")
    spec, frame_size = source.spec, wanted.frame_size
    tasks = deploy.choose_tasks(spec.task_names, wanted.tasks)
    form = _form(spec, wanted.ctal)
    network, rewrites = _deployment(source.network, form, tasks)
    model = trace.to_onnx(
        deploy.Deployed(network, tasks, frame_size),
        _example(spec, frame_size),
        "image" if frame_size is None else "frame",
        tasks,
    )
    if form is not None:
        spec = replace(spec, ctal=replace(spec.ctal, form=form))
    graph = OnnxGraph(
        folder=folder,
        model=replace(spec, tasks=tuple(spec.task(task) for task in tasks)),
        opset=trace.OPSET,
        ctal=form,
        rewrites=rewrites,
        branches=tuple(dict.fromkeys(branch_of(node.name) for node in model.graph.node)),
        inputs=_tensor_specs(model.graph.input),
        outputs=_tensor_specs(model.graph.output),
        frame_size=frame_size,
        notes=source.notes,
        source=source.record,
        versions=_versions(),
    )
    try:
        onnx.save(model, graph.path)
        graph = with_parity(graph, source.network, frames)
        graph.write()
    except OSError as error:
        raise ExportError(f"the graph cannot be written to {folder}: {error.strerror or error}") from error
    seconds, megabytes = time.perf_counter() - start, graph.path.stat().st_size / 1e6
    report(f"exported in {seconds:.1f} s, {_worst(graph)}, {megabytes:.1f} MB")
    return graph


def check_form(form: str | None) -> None:
    """Raise SpecError where ``form`` is not a form of CTAL that this stage exports."""
    if form is None or form in CTAL_FORMS:
        return
    if form.split(":")[0] == "basis":
        raise SpecError(
            f"CTAL form {form!r} needs calibration frames, which this version does not take yet; "
            f"it exports {', '.join(CTAL_FORMS)}"
        )
    raise SpecError(f"CTAL form {form!r} is unknown; known: {', '.join(CTAL_FORMS)}, basis:R")


def _form(spec: ModelSpec, asked: str | None) -> str | None:
    check_form(asked)
    if spec.network not in ("emanet", "m_emanet"):
        if asked is not None:
            raise SpecError(f"model {spec.name!r} is a {spec.network} network, without CTAL: leave --ctal out")
        return None
    return asked or "exact"


def _deployment(network: Network, form: str | None, tasks: Sequence[str]) -> tuple[Network, tuple[str, ...]]:
    """Return the network to trace, and the rewrites applied: none to the published form, which is there to compare."""
    if form == "affinity":
        return deploy.published(network), ()
    return deploy.exact(network, tasks, tiled=True)


def _example(spec: ModelSpec, frame_size: tuple[int, int] | None) -> torch.Tensor:
    if frame_size is None:
        return torch.zeros(1, 3, *spec.input.size)
    if min(frame_size) < 1:
        raise SpecError(f"frame size {frame_size[0]}x{frame_size[1]} has an extent that is not positive")
    return torch.zeros(*frame_size, 3, dtype=torch.uint8)


def _tensor_specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(extent.dim_value for extent in tensor.shape.dim)
        specs.append(TensorSpec(value.name, shape, _DTYPES[tensor.elem_type], _LAYOUTS[len(shape)]))
    return tuple(specs)


def _versions() -> dict[str, str]:
    versions = {"emadeploy": __version__, "torch": str(torch.__version__), "onnx": onnx.__version__}
    machine = cpu_model()
    return versions | ({"cpu": machine} if machine else {})


def _worst(graph: OnnxGraph) -> str:
    errors = {task: values.get("raw_error", values.get("decoded_error")) for task, values in graph.parity.items()}
    worst = max(errors, key=lambda task: errors[task])
    return f"off by {errors[worst]:.1e} at most ({worst}, relative to PyTorch)"
