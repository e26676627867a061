"""dataset.yml: what it means, and that every mistake in it is named with its key."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import SpecError
from emadeploy.contract.tasks import CLASS_SETS, KINDS
from emadeploy.data.folder_spec import parse_folder_spec

MINIMAL = {"image": "i", "splits": {"train": "t.txt"}, "tasks": {"depth": {"files": "d"}}}

names = st.from_regex(r"[a-z0-9_]{1,8}(/[a-z0-9_]{1,8})?", fullmatch=True)
whole = st.lists(st.integers(-5, 300), max_size=4)
class_lists = st.lists(st.from_regex(r"[a-z ]{1,6}", fullmatch=True), min_size=2, max_size=5)
label_tasks = st.fixed_dictionaries(
    {"files": names, "classes": class_lists | st.sampled_from(sorted(CLASS_SETS))}, optional={"ignore": whole}
)
binary_tasks = st.fixed_dictionaries(
    {"files": names},
    optional={"positive": st.integers(1, 200), "ignore": st.lists(st.integers(201, 300), max_size=3)},
)
depth_tasks = st.fixed_dictionaries(
    {"files": names},
    optional={
        "unit": st.sampled_from(["metre", "inverse_depth"]),
        "scale": st.floats(1e-6, 1e6) | st.integers(1, 1000),
        "invalid": st.lists(st.floats(allow_nan=False) | st.integers(0, 65535), max_size=3),
    },
)
normals_tasks = st.fixed_dictionaries(
    {"files": names},
    optional={
        "frame": st.sampled_from(KINDS["normals"].frames),
        "direction": st.sampled_from(KINDS["normals"].directions),
    },
)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "semseg": label_tasks,
        "human_parts": label_tasks,
        "depth": depth_tasks,
        "normals": normals_tasks,
        "edge": binary_tasks,
        "saliency": binary_tasks,
    },
).filter(bool)
specs = st.fixed_dictionaries(
    {
        "image": names,
        "splits": st.fixed_dictionaries({}, optional={"train": names, "val": names}).filter(bool),
        "tasks": tasks,
    }
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(specs)
def test_what_is_right_is_read_as_it_was_written(data):
    spec = parse_folder_spec(yaml.safe_load(yaml.safe_dump(data)))
    assert spec.image == data["image"]
    assert dict(spec.splits) == data["splits"]
    assert [task.spec.name for task in spec.tasks] == [name for name in KINDS if name in data["tasks"]]
    for task in spec.tasks:
        given_keys = data["tasks"][task.spec.name]
        assert task.files == given_keys["files"]
        if "classes" in given_keys:
            wanted = given_keys["classes"]
            assert task.spec.class_names == (tuple(wanted) if isinstance(wanted, list) else CLASS_SETS[wanted][0])
            assert task.ignore == tuple(given_keys.get("ignore", (-1, 255)))
        if task.spec.name == "depth":
            assert task.scale == given_keys.get("scale", 1)
            assert (task.spec.unit == "metre") == (task.spec.direction == "farther_is_larger")
        if task.spec.name == "normals":
            assert task.spec.frame == given_keys.get("frame", "camera_optical")


@given(st.dictionaries(st.sampled_from(["image", "splits", "tasks", "other"]), anything))
def test_anything_else_is_refused_as_a_spec_error(data):
    with pytest.raises(SpecError):
        parse_folder_spec(data)


@given(specs, st.sampled_from(["image", "splits", "tasks"]), anything)
def test_one_wrong_value_is_refused_or_right(data, key, value):
    try:
        parse_folder_spec({**data, key: value})
    except SpecError as error:
        told = str(error)
    else:
        told = f"{key} is right" if value else ""
    assert key in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "image None is not the name of a folder or file"),
        ({"image": "/data"}, "image '/data' leads out of the folder of dataset.yml"),
        ({"image": "../data"}, "leads out of the folder"),
        ({"image": "a\\b"}, "leads out of the folder"),
        ({"images": "i"}, "unknown key 'images'; known: image, splits, tasks"),
        ({"splits": {}}, "splits is empty; expected train and val"),
        ({"splits": {"test": "t"}}, "splits: unknown key 'test'; known: train, val"),
        ({"splits": ["train"]}, "splits is not a mapping but list"),
        ({"splits": {"train": 3}}, "splits.train 3 is not the name of a folder or file"),
        ({"tasks": {}}, "tasks is empty: for pictures without truth use images:DIR"),
        ({"tasks": {"pose": {"files": "p"}}}, "tasks: task 'pose' is unknown; known: semseg, depth"),
        ({"tasks": {"depth": "d"}}, "tasks.depth is not a mapping but str"),
        ({"tasks": {"depth": {}}}, "tasks.depth: lacks files"),
        ({"tasks": {"depth": {"files": "d", "size": 3}}}, "unknown key 'size'; known: files, unit, scale, invalid"),
        (
            {"tasks": {"depth": {"files": "d", "unit": "mm"}}},
            "tasks.depth: unit 'mm' is unknown; known: metre, inverse",
        ),
        ({"tasks": {"depth": {"files": "d", "unit": []}}}, r"tasks.depth: unit \[\] is unknown"),
        ({"tasks": {"depth": {"files": "d", "scale": 0}}}, "tasks.depth: scale 0 is not a number above 0"),
        ({"tasks": {"depth": {"files": "d", "scale": "1e-3"}}}, "in YAML, write 1.0e-3 for 1e-3"),
        ({"tasks": {"depth": {"files": "d", "scale": float("inf")}}}, "scale inf is not a number above 0"),
        ({"tasks": {"depth": {"files": "d", "invalid": 0}}}, "tasks.depth: invalid is not a list but int"),
        ({"tasks": {"depth": {"files": "d", "invalid": ["nan"]}}}, "invalid 'nan' is not a number; .*is .nan"),
        ({"tasks": {"semseg": {"files": "s"}}}, "tasks.semseg: lacks classes"),
        ({"tasks": {"semseg": {"files": "s", "classes": "mine"}}}, "class set 'mine' is unknown; known: nyuv2-13"),
        ({"tasks": {"semseg": {"files": "s", "classes": 3}}}, "classes is not a list but int"),
        ({"tasks": {"semseg": {"files": "s", "classes": ["one"]}}}, "needs at least 2 classes, got 1"),
        ({"tasks": {"semseg": {"files": "s", "classes": []}}}, "needs at least 2 classes, got 0"),
        ({"tasks": {"semseg": {"files": "s", "classes": ["a", "b"], "ignore": ["x"]}}}, "ignore 'x' is not a whole"),
        ({"tasks": {"normals": {"files": "n", "frame": "world"}}}, "tasks.normals: .*frame 'world' is unknown"),
        ({"tasks": {"edge": {"files": "e", "positive": 0}}}, "positive 0 is not a whole number above 0"),
        ({"tasks": {"edge": {"files": "e", "positive": True}}}, "positive True is not a whole number"),
        ({"tasks": {"edge": {"files": "e", "positive": 2, "ignore": [2]}}}, r"ignore \[2\] holds 0 or 2"),
        ({"tasks": {"edge": {"files": "e", "classes": ["a", "b"]}}}, "unknown key 'classes'; known: files, positive"),
    ],
)
def test_a_mistake_is_named_with_its_key(change, message):
    with pytest.raises(SpecError, match=message):
        parse_folder_spec({**MINIMAL, **change})


def test_the_example_of_the_documentation_is_right():
    import emadeploy.data.folder_spec as module

    lines = module.__doc__.splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("    "))
    spec = parse_folder_spec(yaml.safe_load(example))
    assert [task.spec.name for task in spec.tasks] == list(KINDS)
