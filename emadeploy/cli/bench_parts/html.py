"""`emadeploy bench --html`: the page of a report, with pictures of what each engine answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from emadeploy.bench.html_report import compose
from emadeploy.bench.page import Frame, Picture, Section, Strip, write_page
from emadeploy.bench.rows import Report
from emadeploy.cli.demo_parts.judge import Maps, answer, metrics
from emadeploy.cli.map_pictures import depth_range, map_picture
from emadeploy.contract.errors import EmadeployError, one_line
from emadeploy.contract.manifest import MANIFEST_NAME, Manifest
from emadeploy.data.sample import Sample

#: Frames on the page.
_SHOWN = 2

Progress = Callable[[int, int], None]


def write_html(path: Path, report: Report, data: str | None = None, progress: Progress | None = None) -> None:
    """Write the page of ``report`` to ``path``.

    ``data`` is where its sample frames are from, by default two made rooms. What a row has no artifact on this machine
    for is left out. Raises DataError where the data cannot be read or the disk refuses.
    """
    folders = {row.name: Path(row.artifact) for row in report.rows if row.artifact}
    manifests = {name: Manifest.read(folder) for name, folder in folders.items() if (folder / MANIFEST_NAME).is_file()}
    audits = {name: manifest.audit for name, manifest in manifests.items() if manifest.audit}
    shown = [row.name for row in report.rows if row.measured and not row.estimate and row.name in manifests]
    pictured = {name: (folders[name], manifests[name]) for name in shown}
    write_page(path, compose(report, audits, _pictures(pictured, data, progress or (lambda done, total: None))))


def _pictures(engines: Mapping[str, tuple[Path, Manifest]], data: str | None, progress: Progress) -> Section | None:
    if not engines:
        return None
    samples = _samples(next(manifest for _, manifest in engines.values()), data, progress)
    found = {name: _answers(folder, samples, progress) for name, (folder, _) in engines.items()}
    silent = {name: why for name, why in found.items() if isinstance(why, str)}
    answers = {name: maps for name, maps in found.items() if not isinstance(maps, str)}
    frames = [
        _frame(sample, {name: (engines[name][1], maps[index]) for name, maps in answers.items()})
        for index, sample in enumerate(samples)
    ]
    if silent:
        frames.append(Frame("No pictures", note="; ".join(f"{name}: {why}" for name, why in silent.items())))
    origin = f"From {data}." if data else "Made rooms, whose truth is exact."
    return Section("What they answer", f"{origin} Depth runs from near (blue) to far (red).", frames)


def _answers(folder: Path, samples: Sequence[Sample], progress: Progress) -> Sequence[Maps] | str:
    """Return the maps of each sample; where the engine takes no such frames, or fails, why."""
    try:
        return answer(folder, samples, progress)
    except EmadeployError as error:
        return one_line(error)


def _samples(manifest: Manifest, data: str | None, progress: Progress) -> list[Sample]:
    from emadeploy.cli.demo_parts.frames import rooms
    from emadeploy.data.source import open_data
    from emadeploy.runtime.machine import usable_cores

    workers = usable_cores()
    if data is None:
        dataset = rooms(_SHOWN, manifest.frame_size or manifest.model.input.size, workers, progress)
    else:
        dataset = open_data(data, split="val", workers=workers, progress=progress)
    return [dataset[index] for index in range(min(_SHOWN, len(dataset)))]


def _frame(sample: Sample, answers: Mapping[str, tuple[Manifest, Maps]]) -> Frame:
    tasks = list({task.name: task for manifest, _ in answers.values() for task in manifest.model.tasks}.values())
    ranged = sample.truth if "depth" in sample.truth else next((maps for _, maps in answers.values()), {})
    span = depth_range(ranged.get("depth"))
    strips: list[Strip] = []
    for name, (manifest, maps) in answers.items():
        judged = metrics(manifest.model, [maps], [sample]) if set(sample.truth) & set(maps) else {}
        found = [
            map_picture(maps[task.name], task, span, judged.get(task.name)) if task.name in maps else None
            for task in tasks
        ]
        strips.append(Strip(name, [None if strips else Picture(sample.image, "input"), *found]))
    truth = [map_picture(sample.truth[task.name], task, span) if task.name in sample.truth else None for task in tasks]
    if any(truth):
        strips.append(Strip("ground truth", [None, *truth]))
    return Frame(f"Frame {sample.name}", strips)
