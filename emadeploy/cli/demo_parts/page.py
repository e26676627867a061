"""The demo's page: which pictures stand beside each other, and what is written under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emadeploy.bench.page import Facts, Frame, Page, Picture, Section, Strip
from emadeploy.cli.demo_parts.frames import Photograph
from emadeploy.cli.demo_parts.judge import Maps, metrics
from emadeploy.cli.map_pictures import depth_range, map_picture, task_title
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Sample

#: Rooms on the page; all of them are in the table.
ROOMS_SHOWN = 6
UNTRAINED = (
    "Untrained: the weights are random. Sizes, times, memory and agreement count; maps and metrics mean nothing."
)
_ENGINES = {"rewritten": "rewritten graph", "published": "published graph"}

Answers = Mapping[str, Sequence[Maps]]


def compose(
    spec: ModelSpec,
    rooms: tuple[Sequence[Sample], Answers],
    photographs: tuple[Sequence[Photograph], Answers],
    facts: Facts,
    machine: Sequence[tuple[str, str]],
    *,
    untrained: bool,
) -> Page:
    """Return the page. ``rooms`` and ``photographs``: the frames, and what each graph answered for them, in order.

    The answers are by name of the graph: 'rewritten', 'published'; one that could not run is absent.
    """
    samples, room_answers = rooms
    pictures, picture_answers = photographs
    trained_on = "made rooms" if spec.data == "rooms" else spec.data or "other pictures"
    outside = (
        f"Real cameras, real light. The network was trained on {trained_on}: these pictures are out of its domain, "
        "and are shown as they come. Black in a ground truth: not measured."
    )
    labelled = [task for task in spec.tasks if task.kind in ("semseg", "human_parts") and task.class_names]
    return Page(
        title=f"{spec.name}: one network, every map",
        lead=f"{', '.join(task_title(task) for task in spec.tasks)} from one camera frame, by the network as published "
        "and by the graph that emadeploy rewrote for the edge; measured on this machine, on frames it was not "
        "trained on.",
        warning=UNTRAINED if untrained else "",
        facts=facts,
        machine=machine,
        legend=[entry for task in labelled for entry in zip(task.class_names, task.palette, strict=True)],
        sections=[
            Section(
                f"Made rooms, {min(ROOMS_SHOWN, len(samples))} of {len(samples)}",
                "Rendered rooms, held out, whose ground truth is exact. Depth runs from near (blue) to far (red) "
                "over the range of the ground truth; normals: red to the right, green up, blue toward the camera.",
                [
                    _room(spec, index, sample, {name: maps[index] for name, maps in room_answers.items()})
                    for index, sample in enumerate(samples[:ROOMS_SHOWN])
                ],
            ),
            Section(
                "Photographs",
                "Random weights on real photographs." if untrained else outside,
                [
                    _photograph(spec, picture, {name: maps[index] for name, maps in picture_answers.items()})
                    for index, picture in enumerate(pictures)
                ],
            ),
        ],
        footer=("Written by emadeploy demo. This file is complete in itself: nothing is fetched when it is opened.",),
    )


def _room(spec: ModelSpec, index: int, sample: Sample, answers: Mapping[str, Maps]) -> Frame:
    # The two graphs answer the same to the eye (the table has the numbers): once is enough to see it.
    names = [name for name in _ENGINES if name in answers][: None if index == 0 else 1]
    return Frame(f"Room {index + 1}", _strips(spec, sample, {name: answers[name] for name in names}))


def _photograph(spec: ModelSpec, photograph: Photograph, answers: Mapping[str, Maps]) -> Frame:
    sample = photograph.sample
    names = [name for name in _ENGINES if name in answers][: None if sample.truth else 1]
    strips = _strips(spec, sample, {name: answers[name] for name in names})
    return Frame(photograph.title, strips, photograph.credit)


def _strips(spec: ModelSpec, sample: Sample, answers: Mapping[str, Maps]) -> list[Strip]:
    shown = Picture(sample.image, "input")
    ranged = sample.truth if "depth" in sample.truth else next(iter(answers.values()), {})
    span = depth_range(ranged.get("depth"))
    strips: list[Strip] = []
    for name, maps in answers.items():
        under = metrics(spec, [maps], [sample]) if set(sample.truth) & set(maps) else {}
        pictures = [map_picture(maps[task.name], task, span, under.get(task.name)) for task in spec.tasks]
        strips.append(Strip(_ENGINES[name], [None if strips else shown, *pictures]))
    truth = [
        map_picture(sample.truth[task.name], task, span) if task.name in sample.truth else None for task in spec.tasks
    ]
    if any(truth):
        strips.append(Strip("ground truth", [None if strips else shown, *truth]))
    return strips
