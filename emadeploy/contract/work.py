"""The record of what a network takes: its layers as an engine would run them, with their arithmetic and their bytes.

It is made from a graph where there is one (`emadeploy.work`), shipped beside a model where there is none, and read by
whatever estimates times and memory from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from emadeploy.contract.errors import SpecError
from emadeploy.contract.plain import as_list, as_mapping, one_of, require, spec_path

#: convolution; the same with one channel per group; matrix product; resizing; sums and norms; values one by one;
#: values moved to other places.
KINDS = ("conv", "depthwise", "product", "resize", "reduce", "pointwise", "move")
#: Kinds that multiply and add up.
ARITHMETIC = ("conv", "depthwise", "product")
PRECISIONS = ("int8", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Layer:
    """What one kernel of an engine does: a node of the graph with what is fused behind it.

    - ``name``: of the node; ``kind``: one of KINDS; ``branch``: of the network; ``precision``: of its arithmetic.
    - ``macs``: multiply-accumulates. ``inner``: channels (or columns) that it sums over, ``outer``: that it answers, of
      one group; 0 where it does no arithmetic.
    - ``reads``, ``writes``: bytes of each map that it reads and writes. ``weights``: bytes of its constants.
    """

    name: str
    kind: str
    branch: str
    precision: str
    macs: int = 0
    inner: int = 0
    outer: int = 0
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    weights: int = 0

    def __post_init__(self) -> None:
        with spec_path(f"layer {self.name!r}"):
            one_of("kind", self.kind, KINDS)
            one_of("precision", self.precision, PRECISIONS)
            counts = (self.macs, self.inner, self.outer, *self.reads, *self.writes, self.weights)
            require(all(isinstance(count, int) and count >= 0 for count in counts), "a count is not an int from 0 on")


@dataclass(frozen=True)
class Work:
    """What a graph takes, in the order in which it runs.

    - ``weight_bytes``: of all constants, each once. ``activation_bytes``: the most that maps take at one time, each of
      them kept from the layer that writes it to the last that reads it.
    """

    layers: tuple[Layer, ...]
    weight_bytes: int
    activation_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json; a layer is a list in the order of its fields."""
        return {
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
            "layers": [list(astuple(layer)) for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Work:
        """Read what `to_dict` wrote; raises SpecError for anything else."""
        data = as_mapping("the work of a graph", data)
        layers = [as_list("a layer", layer) for layer in as_list("layers", data.get("layers"))]
        totals: dict[str, Any] = {key: data.get(key) for key in ("weight_bytes", "activation_bytes")}
        for key, total in totals.items():
            require(isinstance(total, int), f"{key} {total!r} is not an int")
        return cls(tuple(map(_layer, layers)), **totals)


def _layer(values: Sequence[Any]) -> Layer:
    fields: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    try:
        return Layer(*fields)
    except TypeError as error:
        raise SpecError(f"a layer has other fields than {', '.join(Layer.__dataclass_fields__)}: {error}") from None


def to_json(record: Mapping[str, Any], works: Mapping[str, Mapping[str, Work]]) -> str:
    """Return json text of ``record``, with ``works`` (graph -> precision -> work) under 'graphs', a line per layer."""
    lines: list[str] = []
    for graph, by_precision in works.items():
        tables = []
        for precision, work in by_precision.items():
            plain = work.to_dict()
            rows = ",\n".join(json.dumps(layer, separators=(",", ":")) for layer in plain.pop("layers"))
            head = json.dumps(plain).removesuffix("}")
            tables.append(f'{json.dumps(precision)}: {head}, "layers": [\n{rows}\n]}}')
        lines.append(f"{json.dumps(graph)}: {{\n" + ",\n".join(tables) + "\n}")
    head = json.dumps(dict(record), indent=1).removesuffix("\n}")
    return f'{head},\n "graphs": {{\n' + ",\n".join(lines) + "\n}\n}\n"


def from_json(text: str) -> tuple[dict[str, Any], dict[str, dict[str, Work]]]:
    """Return what `to_json` was given; raises SpecError where the text is something else."""
    try:
        record = dict(as_mapping("it", json.loads(text)))
    except ValueError as error:
        raise SpecError(f"not json: {error}") from None
    graphs = as_mapping("graphs", record.pop("graphs", None))
    works: dict[str, dict[str, Work]] = {}
    for graph, tables in graphs.items():
        for precision, table in as_mapping(graph, tables).items():
            with spec_path(f"{graph}, {precision}"):
                works.setdefault(graph, {})[precision] = Work.from_dict(table)
    return record, works


def branches(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Return the branches of ``layers``, each once, in their order."""
    return tuple(dict.fromkeys(layer.branch for layer in layers))
