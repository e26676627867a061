"""The stage: from a network to the record of its graph."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from emadeploy import __version__
from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.branches import branch_of
from emadeploy.contract.errors import ExportError, SpecError
from emadeploy.contract.preprocess import Float32
from emadeploy.contract.spec import CTAL_FORMS, ModelSpec, TensorSpec
from emadeploy.export import deploy, trace
from emadeploy.export.basis_choice import DEFAULT_BOUND, Basis, choose
from emadeploy.export.parity import FRAMES, with_parity
from emadeploy.export.source import Source
from emadeploy.nets.network import Network
from emadeploy.runtime.machine import cpu_model

Report = Callable[[str], None]

_DTYPES = {int(onnx.TensorProto.FLOAT): "float32", int(onnx.TensorProto.UINT8): "uint8"}
#: The frames that choose a basis, at most: the error moves little beyond, and each is a pass of the network. Of large
#: images fewer, as many as have the same number of pixels, but not under the least.
BASIS_FRAMES = 16
_LEAST_BASIS_FRAMES, _BASIS_PIXELS = 4, BASIS_FRAMES * 288 * 384
_LAYOUTS = {4: "BCHW", 3: "HWC", 2: "HW"}


@dataclass(frozen=True)
class Wanted:
    """What the graph shall be. Raises SpecError for a form of CTAL that is none, and a basis error without sense.

    - ``ctal``: the form of CTAL; ``None``: exact. ``tasks``: those it answers; ``None``: all.
    - ``frame_size``: (height, width) of the uint8 frames that it takes; ``None``: it takes images.
    - ``low_precision``: it shall be quantised, or run in float16.
    - ``basis_error``: for 'basis', largest relative error of an attended map that the chosen kernels may leave, above 0
      and below 1; ``None``: as `bound` says.
    """

    ctal: str | None = None
    tasks: tuple[str, ...] | None = None
    frame_size: tuple[int, int] | None = None
    low_precision: bool = False
    basis_error: float | None = None

    def __post_init__(self) -> None:
        check_form(self.ctal)
        if self.basis_error is not None:
            _check_basis_error(self.basis_error, self.ctal)

    @property
    def bound(self) -> float:
        """The error that a chosen basis may leave."""
        return DEFAULT_BOUND if self.basis_error is None else self.basis_error


def export_graph(
    source: Source,
    wanted: Wanted,
    folder: Path,
    *,
    frames: Iterable[Float32] | None = None,
    report: Report = print,
    compared: int = FRAMES,
) -> OnnxGraph:
    """Write the graph of ``source`` and its record into ``folder``; return the record.

    The graph is compared with PyTorch on ``compared`` made frames (`parity`). ``frames`` are preprocessed images
    (1, 3, H, W), float32, that a kernel basis is chosen on, for forms that need them (`needs_frames`).

    Raises SpecError for an unknown task or form, ExportError where the graph cannot be made or computes something else.
    """
    start = time.perf_counter()
    report(f"exporting {source.described} (torch {torch.__version__}, onnx {onnx.__version__}, opset {trace.OPSET})")
    spec, frame_size = source.spec, wanted.frame_size
    tasks = deploy.choose_tasks(spec.task_names, wanted.tasks)
    form = _form(spec, wanted.ctal)
    bases: dict[str, Basis] = {}
    if needs_frames(form):
        bases = _choose_basis(source.network, wanted, frames, report)
    network, rewrites = _deployment(source.network, form, tasks, wanted, bases)
    model = trace.to_onnx(
        deploy.Deployed(network, tasks, frame_size),
        _example(spec, frame_size),
        "image" if frame_size is None else "frame",
        tasks,
    )
    if form in CTAL_FORMS:
        spec = replace(spec, ctal=replace(spec.ctal, form=form))
    graph = OnnxGraph(
        folder=folder,
        model=replace(spec, tasks=tuple(spec.task(task) for task in tasks)),
        opset=trace.OPSET,
        ctal=form,
        rewrites=rewrites,
        basis={path: basis.facts() for path, basis in bases.items()},
        branches=tuple(dict.fromkeys(branch_of(node.name) for node in model.graph.node)),
        inputs=_tensor_specs(model.graph.input),
        outputs=_tensor_specs(model.graph.output),
        frame_size=frame_size,
        notes=source.notes,
        source=source.record,
        learned=source.learned,
        versions=_versions(),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, graph.path)
        approximation = deploy.Deployed(network, tasks) if bases else None
        graph = with_parity(graph, source.network, compared, approximation)
        graph.write()
    except OSError as error:
        raise ExportError(f"the graph cannot be written to {folder}: {error.strerror or error}") from error
    seconds, megabytes = time.perf_counter() - start, graph.path.stat().st_size / 1e6
    report(f"exported in {seconds:.1f} s, {_worst(graph)}, {megabytes:.1f} MB")
    return graph


def needs_frames(form: str | None) -> bool:
    """Whether the form of CTAL is one that is chosen on calibration frames."""
    return form is not None and form.split(":")[0] == "basis"


def check_form(form: str | None) -> None:
    """Raise SpecError where ``form`` is not a form of CTAL that this stage exports."""
    if form is not None and form not in CTAL_FORMS and not re.fullmatch(r"basis(:[1-9])?", form):
        known = ", ".join(CTAL_FORMS)
        raise SpecError(f"CTAL form {form!r} is unknown; known: {known}, basis, and basis:R with R kernels, 1 to 9")


def _check_basis_error(error: float, form: str | None) -> None:
    said = f"--basis-error {100 * error:g}"
    if form != "basis":
        raise SpecError(
            f"{said}: the form of CTAL is {form or 'exact'}; it goes with --ctal basis alone, which chooses as many "
            "kernels as keep that error: leave it out"
        )
    if not 0 < error < 1:
        raise SpecError(
            f"{said} is not above 0 and below 100 percent of an attended map; {100 * DEFAULT_BOUND:g} is usual"
        )


def _form(spec: ModelSpec, asked: str | None) -> str | None:
    if spec.network not in ("emanet", "m_emanet"):
        if asked is not None:
            raise SpecError(f"model {spec.name!r} is a {spec.network} network, without CTAL: leave --ctal out")
        return None
    return asked or "exact"


def _choose_basis(
    network: Network, wanted: Wanted, frames: Iterable[Float32] | None, report: Report
) -> dict[str, Basis]:
    images = list(frames or ())
    pixels = network.spec.input.height * network.spec.input.width
    most = min(BASIS_FRAMES, max(_LEAST_BASIS_FRAMES, _BASIS_PIXELS // pixels))
    images = images[:: -(-len(images) // most) or 1]
    _, _, rank = (wanted.ctal or "").partition(":")
    report(f"choosing kernels on {len(images)} frames")
    bases = choose(network, images, rank=int(rank) if rank else None, bound=wanted.bound)
    for basis in bases.values():
        chosen = ", ".join(f"{task} {n} (off by {100 * basis.errors[task]:.2f} %)" for task, n in basis.ranks.items())
        report(f"kernels of 9: {chosen}")
    return bases


def _deployment(
    network: Network, form: str | None, tasks: Sequence[str], wanted: Wanted, bases: Mapping[str, Basis]
) -> tuple[Network, tuple[str, ...]]:
    """Return the network to trace, and the rewrites applied: none to the published form, which is there to compare."""
    if form == "affinity":
        return deploy.published(network), ()
    if bases:
        return deploy.on_basis(network, tasks, bases)
    return deploy.exact(network, tasks, tiled=not wanted.low_precision)


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
