"""Recipes: what is shipped, what is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emadeploy import zoo
from emadeploy.calibrate.recipe import METHODS, TYPES, Recipe, load_recipe
from emadeploy.contract.errors import SpecError
from emadeploy.contract.tasks import KINDS

TARGETS = ("onnxruntime-int8", "openvino-int8", "trt-int8")
GOOD = {
    "method": "percentile",
    "percentile": 99.9,
    "frames": 50,
    "minimum": 8,
    "activations": "asymmetric",
    "weights": "per_channel",
    "types": "auto",
    "rest": "fp32",
    "budgets": {"depth": 2},
    "evaluations": 10,
}


def write(folder: Path, **changes: object) -> Path:
    """Write a good recipe for ONNX Runtime with some fields changed, ``None`` taking one away."""
    path = folder / "mine.yml"
    data = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_every_int8_target_has_a_recipe_that_says_why(target):
    recipe = load_recipe(target)
    assert recipe.target == target
    assert set(recipe.budgets) == set(KINDS)
    text = (zoo.assets("calibration") / "recipes" / f"{target}.yml").read_text("utf-8")
    assert sum(line.startswith("# ") for line in text.splitlines()) >= 6


def test_aliases_and_tensorrt_for_rtx_share_a_recipe():
    assert load_recipe("ort-int8") == load_recipe("onnxruntime-int8")
    assert load_recipe("trt-rtx-int8") == load_recipe("trt-int8")


def test_products_that_need_symmetry_have_it():
    assert load_recipe("openvino-int8").symmetric
    assert load_recipe("trt-int8").symmetric
    assert load_recipe("trt-int8").types == "S8S8"


def test_a_recipe_of_ones_own_is_read(tmp_path):
    recipe = load_recipe("onnxruntime-int8", write(tmp_path))
    assert recipe == Recipe(target="onnxruntime-int8", **GOOD)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "average"}, "method 'average' is unknown; known: minmax, percentile, entropy, mse"),
        ({"colour": "red"}, "unknown field 'colour'; known: target, method"),
        ({"target": "trt-int8"}, "field 'target' is not allowed"),
        ({"activations": "both"}, "activations 'both' is unknown; known: symmetric, asymmetric"),
        ({"weights": "none"}, "weights 'none' is unknown; known: per_channel, per_tensor"),
        ({"types": "S4S4"}, "types 'S4S4' is unknown; known: auto, U8S8, U8S8-reduced, S8S8"),
        ({"rest": "fp16"}, "for onnxruntime-int8, rest 'fp16' is unknown; known: fp32"),
        ({"frames": 4}, "minimum 8 is more than the 4 frames"),
        ({"frames": "many"}, "frames 'many' is not an int"),
        ({"evaluations": 0}, "evaluations 0 is not positive"),
        ({"percentile": None}, "percentile None is not over 50 and up to 100"),
        ({"percentile": 100.1}, "percentile 100.1 is not over 50"),
        ({"method": "mse"}, "percentile is for the method 'percentile', not 'mse'"),
        ({"budgets": {"depths": 1}}, "budgets: task 'depths' is unknown; known: semseg, depth"),
        ({"budgets": {"depth": "2%"}}, "budgets: depth '2%' is not a number from 0 up"),
        ({"budgets": {"depth": -1}}, "budgets: depth -1 is not a number from 0 up"),
        ({"budgets": [1]}, "budgets: budgets is not a mapping but list"),
        ({"method": None, "percentile": None}, "missing 1 required .*argument: 'method'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(SpecError, match=rf"mine\.yml: .*{message}"):
        load_recipe("onnxruntime-int8", path)


@pytest.mark.parametrize("target", ["openvino-int8", "trt-int8"])
def test_zero_points_are_refused_where_products_would_fall_back_to_float(tmp_path, target):
    types = "S8S8" if target == "trt-int8" else "auto"
    with pytest.raises(SpecError, match=f"for {target}, activations 'asymmetric' is unknown; known: symmetric"):
        load_recipe(target, write(tmp_path, types=types))
    assert load_recipe(target, write(tmp_path, types=types, activations="symmetric")).symmetric


def test_files_that_are_no_recipes_are_refused(tmp_path):
    (tmp_path / "list.yml").write_text("- 1\n")
    (tmp_path / "broken.yml").write_text("a: [1\n")
    for name, message in (
        ("list.yml", "not a mapping"),
        ("broken.yml", "cannot be read"),
        ("no.yml", "cannot be read.*No such"),
    ):
        with pytest.raises(SpecError, match=rf"{name}.*{message}"):
            load_recipe("trt-int8", tmp_path / name)


@pytest.mark.parametrize(
    ("target", "message"),
    [("onnxruntime-fp32", "is not calibrated; those that are: onnxruntime-int8"), ("int8", "is unknown; known")],
)
def test_targets_without_int8_have_no_recipe(target, message):
    with pytest.raises(SpecError, match=message):
        load_recipe(target)


@pytest.mark.parametrize(
    ("flags", "architecture", "types"),
    [
        (["avx2", "avx512_vnni"], "x86_64", "U8S8"),
        (["avx2", "avx_vnni"], "x86_64", "U8S8"),
        (["avx2", "avx512f"], "x86_64", "U8S8-reduced"),
        ([], "x86_64", "U8S8-reduced"),
        (["asimd", "asimddp"], "aarch64", "S8S8"),
        ([], "arm64", "S8S8"),
    ],
)
def test_auto_becomes_what_suits_the_cpu(flags, architecture, types):
    recipe = load_recipe("onnxruntime-int8")
    assert recipe.resolved(flags, architecture).types == types
    assert replace(recipe, types="S8S8").resolved(flags, architecture).types == "S8S8"


def test_auto_is_resolved_on_this_machine():
    assert load_recipe("onnxruntime-int8").resolved().types in TYPES


@given(
    method=st.sampled_from(METHODS),
    percentile=st.floats(50.1, 100),
    frames=st.integers(1, 500),
    evaluations=st.integers(1, 99),
    budgets=st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(0, 100)),
)
def test_a_recipe_survives_yaml_and_every_field_counts_in_its_digest(
    tmp_path_factory, method, percentile, frames, evaluations, budgets
):
    values = {**GOOD, "method": method, "frames": frames, "minimum": 1, "evaluations": evaluations, "budgets": budgets}
    values["percentile"] = percentile if method == "percentile" else None
    recipe = Recipe(target="onnxruntime-int8", **values)
    again = load_recipe("onnxruntime-int8", write(tmp_path_factory.mktemp("recipe"), **values))
    assert again == recipe
    assert again.digest() == recipe.digest()
    other = replace(recipe, evaluations=evaluations + 1)
    assert other.digest() != recipe.digest()


def test_every_field_counts_in_the_digest():
    base = Recipe(target="onnxruntime-int8", **GOOD)
    other = {"method": "mse", "weights": "per_tensor", "activations": "symmetric", "types": "S8S8", "budgets": {}}
    changes = [{name: value, **({"percentile": None} if name == "method" else {})} for name, value in other.items()]
    changes += [{name: getattr(base, name) + 1} for name in ("frames", "minimum", "evaluations")]
    changes += [{"percentile": 99.0}, {"target": "onnxruntime-int8"}]
    assert {name for change in changes for name in change} | {"rest"} == {field.name for field in fields(Recipe)}
    digests = {replace(base, **change).digest() for change in changes}
    assert len(digests) == len(changes)
    assert base.digest() in digests
