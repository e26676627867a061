"""The record of a network's work: it comes back from json as it was, and nonsense is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import SpecError
from emadeploy.contract.work import KINDS, PRECISIONS, Layer, Work, branches, from_json, to_json

COUNT = st.integers(0, 2**40)
SIZES = st.lists(COUNT, max_size=3).map(tuple)
LAYERS = st.builds(
    Layer,
    st.text(),
    st.sampled_from(KINDS),
    st.text(),
    st.sampled_from(PRECISIONS),
    COUNT,
    COUNT,
    COUNT,
    SIZES,
    SIZES,
    COUNT,
)
WORKS = st.builds(Work, st.lists(LAYERS, max_size=4).map(tuple), COUNT, COUNT)


@given(st.dictionaries(st.text(), st.dictionaries(st.sampled_from(PRECISIONS), WORKS, min_size=1)))
def test_it_comes_back_as_it_was(works: dict[str, dict[str, Work]]) -> None:
    record = {"schema": 1, "model": "mine"}
    assert from_json(to_json(record, works)) == (record, works)


def test_a_layer_is_a_line() -> None:
    text = to_json({"schema": 1}, {"g": {"fp16": Work((Layer("a/Conv", "conv", "backbone", "fp16", 5),), 1, 2)}})
    assert '["a/Conv","conv","backbone","fp16",5,0,0,[],[],0]' in text.split("\n")


def test_branches_are_in_order_each_once() -> None:
    made = [
        Layer(name, "conv", branch, "fp32") for name, branch in zip("abc", ("ctal", "backbone", "ctal"), strict=True)
    ]
    assert branches(made) == ("ctal", "backbone")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (["a", "convolution", "b", "fp16"], "kind 'convolution' is unknown"),
        (["a", "conv", "b", "fp8"], "precision 'fp8' is unknown"),
        (["a", "conv", "b", "fp16", -1], "not an int from 0 on"),
        (["a", "conv", "b", "fp16", 1.5], "not an int from 0 on"),
        (["a"], "other fields than name, kind"),
        ("a", "not a list"),
    ],
)
def test_a_layer_that_is_none_is_refused(layer: object, message: str) -> None:
    text = json.dumps({"graphs": {"g": {"fp16": {"weight_bytes": 0, "activation_bytes": 0, "layers": [layer]}}}})
    with pytest.raises(SpecError, match=f"g, fp16: .*{message}"):
        from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"graphs": {"g": {"fp16": {}}}}', '{"graphs": {"g": []}}'])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        from_json(text)
