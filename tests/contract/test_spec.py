"""Specifications: what is read back equals what was written, and what makes no sense is refused with its path."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import EmadeployError, SpecError
from emadeploy.contract.spec import CtalSpec, InputSpec, ModelSpec, TaskSpec, TensorSpec, TrainSpec, to_plain
from emadeploy.contract.tasks import CLASS_SETS, KINDS, spread_palette

NAMES = st.text("abcdefghij klmn-é", min_size=1, max_size=12)
POSITIVE = st.floats(1e-6, 1e3)
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def tasks(draw: st.DrawFn, kind: str) -> TaskSpec:
    row = KINDS[kind]
    values: dict[str, Any] = {"weight": draw(POSITIVE)}
    if row.channels is None and draw(st.booleans()):
        values["class_names"] = tuple(draw(st.lists(NAMES, min_size=2, max_size=30)))
        if draw(st.booleans()):
            values["palette"] = tuple(draw(COLOURS) for _ in values["class_names"])
    elif row.channels is None:
        values["channels"] = draw(st.integers(2, 254))
    for name in ("unit", "direction", "frame"):
        allowed = getattr(row, name + "s")
        values[name] = draw(st.sampled_from((None, *allowed)))
    if kind == "depth":
        index = draw(st.sampled_from([0, 1]))
        values["unit"], values["direction"] = row.units[index], row.directions[index]
    return TaskSpec(kind, **values)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True))
    return ModelSpec(
        name=draw(NAMES),
        network=draw(st.sampled_from(["emanet", "m_emanet", "stl", "hps"])),
        backbone=draw(st.sampled_from(["hrnet_w18_small_v2", "timm:swinv2_tiny_window8_256"])),
        tasks=tuple(draw(tasks(kind)) for kind in kinds),
        input=InputSpec(
            32 * draw(st.integers(1, 64)), 32 * draw(st.integers(1, 64)), std=tuple(draw(POSITIVE) for _ in range(3))
        ),
        ctal=CtalSpec(draw(st.sampled_from(["exact", "affinity"])), draw(st.floats(0, 1))),
        train=TrainSpec(epochs=draw(st.integers(1, 999)), schedule=draw(st.sampled_from(["cosine"]))),
        data=draw(NAMES),
    )


@given(models())
def test_a_spec_survives_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_is_no_spec_is_a_spec_error(data: Any) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_dict(data)


FIELDS = st.sampled_from(["name", "network", "backbone", "tasks", "input", "ctal", "train"])
JUNK = st.none() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just({"x": 1})


@given(models(), FIELDS, JUNK)
def test_a_field_replaced_by_junk_is_a_spec_error_or_a_spec(spec: ModelSpec, field: str, junk: Any) -> None:
    with contextlib.suppress(SpecError):
        ModelSpec.from_dict({**spec.to_dict(), field: junk})


def small(**values: Any) -> dict[str, Any]:
    return {"name": "m", "network": "emanet", "tasks": [{"kind": "depth"}], "input": {"size": [32, 64]}, **values}


def test_the_smallest_spec_fills_its_defaults() -> None:
    spec = ModelSpec.from_dict(small())
    depth = spec.task("depth")
    assert (depth.channels, depth.unit, depth.direction, depth.invalid) == (1, "metre", "farther_is_larger", 0.0)
    assert spec.input.size == (32, 64)
    assert spec.backbone == "hrnet_w18_small_v2"
    assert spec.ctal == CtalSpec("exact", 0.05)


def test_a_class_set_brings_names_and_palette() -> None:
    task = TaskSpec.from_dict({"kind": "semseg", "classes": "cityscapes-19"})
    assert task.channels == 19
    assert task.class_names[0] == "road"
    assert task.palette[0] == (128, 64, 128)


def test_every_class_set_is_a_task_and_its_colours_differ() -> None:
    for name, (names, palette) in CLASS_SETS.items():
        assert TaskSpec("semseg", class_names=names, palette=palette).channels == len(names), name
        assert len(set(palette)) == len(set(names)) == len(names), name


def test_palettes_of_any_length_have_distinct_colours() -> None:
    assert len(set(spread_palette(40))) == 40


REFUSED = [
    (small(network="yolo"), r"model 'm': network 'yolo' is unknown; known: emanet, m_emanet, stl, hps"),
    (small(backbone="resnet"), r"model 'm': backbone 'resnet' is unknown"),
    (small(tasks=[]), r"model 'm': has no tasks"),
    (small(tasks=None), r"model 'm': tasks is not a list but NoneType"),
    (small(tasks=["depth"]), r"model 'm': task is not a mapping but str"),
    (small(tasks=[{"kind": "depth"}] * 2), r"has a task twice: depth, depth"),
    (small(tasks=[{"kind": "flow"}]), r"task 'flow': task kind 'flow' is unknown|task kind 'flow' is unknown"),
    (small(tasks=[{"kind": "depth", "unit": "feet"}]), r"task 'depth': unit 'feet' is unknown; known: metre, inverse"),
    (small(tasks=[{"kind": "depth", "unit": "inverse_depth"}]), r"contradicts direction"),
    (small(tasks=[{"kind": "depth", "channels": 2}]), r"task 'depth': has 1 channels, got 2"),
    (small(tasks=[{"kind": "depth", "classes": ["a", "b"]}]), r"task 'depth': has 1 channels|has no classes"),
    (small(tasks=[{"kind": "depth", "weight": 0}]), r"task 'depth': weight 0 is not positive"),
    (small(tasks=[{"kind": "edge", "frame": "dataset"}]), r"task 'edge': has no frame, got 'dataset'"),
    (small(tasks=[{"kind": "semseg"}]), r"task 'semseg': needs at least 2 classes"),
    (small(tasks=[{"kind": "semseg", "channels": 255}]), r"255 classes do not fit"),
    (small(tasks=[{"kind": "semseg", "channels": 3, "classes": ["a", "b"]}]), r"2 class names for 3 channels"),
    (small(tasks=[{"kind": "semseg", "classes": "coco"}]), r"class set 'coco' is unknown; known: nyuv2-13"),
    (small(tasks=[{"kind": "semseg", "channels": 2, "palette": [[0, 0, 0]]}]), r"1 colours for 2 classes"),
    (small(tasks=[{"kind": "depth", "colour": "red"}]), r"task 'depth': unknown field 'colour'; known: kind"),
    (small(input=None), r"input is not a mapping but NoneType"),
    (small(input={"size": [32]}), r"input: size \[32\] is not \[height, width\]"),
    (small(input={"size": [32, 50]}), r"input: width 50 is not divisible by 32"),
    (small(input={"size": [-32, 32]}), r"input: height -32 is not a positive int"),
    (small(input={"size": [32, 32], "std": [1, 1, 0]}), r"input: std .* is not positive"),
    (small(ctal={"form": "fast"}), r"ctal: form 'fast' is unknown; known: exact, affinity"),
    (small(ctal={"gamma": 2}), r"ctal: gamma 2 is not between 0 and 1"),
    (small(train={"epochs": 0}), r"train: epochs 0 is not a positive int"),
    (small(train={"learning_rate": -1}), r"train: learning_rate -1 is not positive"),
    (small(train={"optimizer": "sgd"}), r"train: unknown field 'optimizer'"),
    (small(train={"learning_rate": "1e-4"}), r"train: learning_rate '1e-4' is not a number \(in YAML, write 1.0e-4"),
    (small(train={"horizontal_flip": 1}), r"train: horizontal_flip 1 is not true or false"),
    (small(train={"warm_up_epochs": 200}), r"train: warm_up_epochs 200 is not between 0 and the 200 epochs of the run"),
    (small(train={"random_scale": 0.5}), r"train: random_scale 0.5 is not between 1 \(off\) and 4"),
    (small(train={"colour_jitter": 1.0}), r"train: colour_jitter 1.0 is not between 0 \(off\) and 1"),
    (small(train={"clip_norm": 0}), r"train: clip_norm 0 is not positive; leave it out for none"),
    (small(train={"ema_decay": 1.0}), r"train: ema_decay 1.0 is not between 0 and 1, e.g. 0.999"),
    (small(train={"precision": "int8"}), r"train: precision 'int8' is unknown; known: fp32, bf16, fp16"),
    (small(train={"batch_norm": "off"}), r"train: batch_norm 'off' is unknown; known: synchronised, local, frozen"),
    (small(train={"early_stopping": 0}), r"train: early_stopping 0 is not a positive int"),
    (small(train={"accumulate": 2.5}), r"train: accumulate 2.5 is not an int"),
    (small(input={"size": [32, 32], "mean": "0"}), r"input: mean is not a list but str"),
    (small(input={"size": [32, 32], "mean": [0, "x", 0]}), r"input: mean .* is not three numbers"),
    (small(input={"size": [32, 32], "std": [1, float("nan"), 1]}), r"input: std .* is not three numbers"),
    (small(tasks=[{"kind": "semseg", "channels": 2, "palette": [[0, 0, 0], [0, 256, 0]]}]), r"not three ints from 0"),
    (small(tasks=[{"kind": "semseg", "channels": 2, "palette": [[0, 0, 0], 7]}]), r"a colour is not a list but int"),
    (small(colour=1), r"model 'm': unknown field 'colour'"),
    (small(backbone=None), r"model 'm': backbone None is not text"),
    ([], r"a model spec is a mapping, got list"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_with_its_path(data: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        ModelSpec.from_dict(data)


def test_an_unknown_task_is_refused_with_the_tasks_that_there_are() -> None:
    with pytest.raises(SpecError, match="model 'm' has no task 'edge'; it has depth"):
        ModelSpec.from_dict(small()).task("edge")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("image", (1, 3, -1, 640), "float32", "BCHW"), r"tensor 'image': shape \(1, 3, -1, 640\) has an extent"),
        (("image", (), "float32", ""), r"shape \(\) has an extent"),
        (("image", (1, "n"), "float32", "BC"), r"has an extent that is not a positive int"),
        (("image", (1, 3), "float64", "BC"), r"dtype 'float64' is unknown"),
        (("image", (1, 3), "float32", "BCHW"), r"layout 'BCHW' does not fit the shape"),
    ],
)
def test_tensors_that_are_refused(values: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        TensorSpec(*values)


def test_a_tensor_survives_plain_data() -> None:
    tensor = TensorSpec("image", (1, 3, 32, 64), "float32", "BCHW")
    assert TensorSpec.from_dict(to_plain(tensor)) == tensor


def test_every_error_is_an_emadeploy_error() -> None:
    assert issubclass(SpecError, EmadeployError)
