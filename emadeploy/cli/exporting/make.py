"""From an order to an artifact: the stages one after the other, meeting in records on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from emadeploy.build import builder
from emadeploy.build.folder import check_replaceable, publish, scratch
from emadeploy.build.tensorrt_parser import PARSER
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.outcome import BudgetError
from emadeploy.calibrate.recipe import Recipe, load_recipe
from emadeploy.cli.exporting.ahead import Ahead
from emadeploy.cli.exporting.health import keep_health, note_health
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.judge import Judge, open_judge
from emadeploy.cli.exporting.order import Order
from emadeploy.cli.exporting.portable import PORTABLE, in_float, in_half
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.manifest import TARGETS, Manifest, parse_target
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.source import open_data
from emadeploy.export.source import Source, open_source
from emadeploy.export.stage import BASIS_FRAMES, Wanted, export_graph, needs_frames
from emadeploy.runtime.machine import usable_cores

Report = Callable[[str], None]


def make_artifact(name: str | None, order: Order, *, report: Report = print) -> Path:
    """Export what ``name`` says (`source.open_source`) as ordered, and return the artifact's folder.

    Raises any EmadeployError; then nothing is left behind.
    """
    start = time.perf_counter()
    target = parse_target(order.target)
    engine, precision = TARGETS[target]
    build = builder(engine)
    recipe = load_recipe(target, order.recipe).resolved() if precision == "int8" else None
    _check(order, target, recipe)
    source = open_source(name, size=order.size, untrained=order.untrained)
    for note in source.notes:
        report(f"note: {note}")
    output = order.output or Path(f"{source.spec.name}.{target}")
    check_replaceable(output)
    # All that people give is looked at before anything is traced.
    wanted = replace(order.wanted, low_precision=precision != "fp32" or engine in PORTABLE)
    frames = calibration_frames(source.spec, order, recipe) if _takes_frames(order, target) else None
    with ExitStack() as block:
        ahead = block.enter_context(Ahead())
        judge = open_judge(source, order, recipe, ahead.open) if recipe else None
        folder = block.enter_context(scratch(output))
        if recipe is None:
            graph = export_graph(source, wanted, folder / "graph", frames=frames, report=report)
            if engine in PORTABLE and precision == "fp32":
                graph = in_float(graph, folder)
            elif engine in PORTABLE:
                assert frames is not None
                graph = in_half(source, graph, frames, folder, report)
            report(f"building {target}")
            manifest = build(graph, output, target)
            if frames is not None and manifest.compiled:
                manifest = note_health(output, frames.raw(), frames.description)
        else:
            assert frames is not None
            int8, manifest = _quantised(source, wanted, frames, recipe, judge, target, folder, report)
            if judge and judge.usual and int8.seen:
                manifest = keep_health(int8.artifact, int8.seen, judge.data.description)
            else:
                manifest = note_health(int8.artifact, frames.raw(), frames.description, judged=int8.judged)
            publish(int8.artifact, output)
    _report_built(output, manifest, time.perf_counter() - start, report)
    return output


def _quantised(
    source: Source,
    wanted: Wanted,
    frames: CalibrationFrames,
    recipe: Recipe,
    judge: Judge | None,
    target: str,
    folder: Path,
    report: Report,
) -> tuple[Int8, Manifest]:
    """Return the int8 engine that holds the budgets; a basis whose kernels break one before any rounding gets more."""
    # Where kernels are chosen, the error that they may leave is a first guess: the metrics decide.
    bounds = [wanted.bound / factor for factor in (1, 4, 16)] if wanted.ctal == "basis" else [None]
    while True:
        wanted = replace(wanted, basis_error=bounds.pop(0))
        graph = export_graph(source, wanted, folder / "graph", frames=frames, report=report)
        int8 = Int8(graph, frames, recipe, target, folder, report)
        if judge is None:
            return int8, int8.build(frozenset())
        try:
            return int8, judge.keep_within_budgets(int8, source, report)
        except BudgetError:
            if not bounds or judge.holds_in_float(int8, source, report):
                raise
            report("the kernels that were left out break a budget before any rounding: taking more")


def _takes_frames(order: Order, target: str) -> bool:
    """Whether frames choose something: ranges, a basis, or what float16 may hold."""
    return TARGETS[target][1] in ("int8", "fp16") or needs_frames(order.wanted.ctal)


def _check(order: Order, target: str, recipe: Recipe | None) -> None:
    if recipe is None:
        flags = {"--max-drop": order.max_drop, "--recipe": order.recipe, "--data": order.data}
        if not _takes_frames(order, target):
            flags |= {"--calib-data": order.calib_data, "--calib-frames": order.calib_frames}
        given = [flag for flag, value in flags.items() if value is not None]
        if given:
            frames = not {"--max-drop", "--recipe", "--data"} & {*given}
            what = "int8 and fp16 targets, and --ctal basis," if frames else "int8 targets"
            raise SpecError(f"{', '.join(given)}: for {what} alone; {target} is not calibrated")


def calibration_frames(spec: ModelSpec, order: Order, recipe: Recipe | None) -> CalibrationFrames:
    """Return the calibration frames, checked; raises CalibrationError, DataError."""
    minimum = recipe.minimum if recipe else 1
    if order.calib_frames is not None and order.calib_frames < minimum:
        raise CalibrationError(f"--calib-frames {order.calib_frames}: {order.target} needs at least {minimum}")
    if order.calib_data is None:
        frames = CalibrationFrames.bundled(spec, count=order.calib_frames, minimum=minimum)
    else:
        count = order.calib_frames or (recipe.frames if recipe else BASIS_FRAMES)
        with progress("rendering") as bar:
            dataset = open_data(order.calib_data, split="train", workers=usable_cores(), progress=bar)
        frames = CalibrationFrames.from_dataset(dataset, count, spec.input, minimum=minimum)
    if order.calib_frames is not None and len(frames) < order.calib_frames:
        raise CalibrationError(
            f"--calib-frames {order.calib_frames}: {frames.description} holds {len(frames)}; ask for fewer, or give "
            "more frames with --calib-data"
        )
    return frames


def _report_built(output: Path, manifest: Manifest, seconds: float, report: Report) -> None:
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    library = f"{manifest.engine} {manifest.versions.get(manifest.engine, '')}".strip()
    report(f"built {output} in {seconds:.1f} s ({library}), {megabytes:.1f} MB")
    if not manifest.compiled:
        parser = manifest.versions.get(PARSER)
        parsed = (
            f"parsed by {parser}"
            if parser
            else "checked by rules alone: TensorRT for RTX, which could parse it, is not here"
        )
        report(
            f"portable: a strongly typed graph, {parsed}; to be compiled on the device by `emadeploy build`, or at its "
            "first load. Until then its precision is asked for, not obtained"
        )
