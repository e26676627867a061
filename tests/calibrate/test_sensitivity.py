"""The harm of each section: what is asked of the network, what is told of it."""

import io
import json
import math

import pytest
from rich.console import Console

from emadeploy.calibrate.budgets import Budgets, parse_budgets
from emadeploy.calibrate.sensitivity import SensitivityTable, sensitivity
from emadeploy.calibrate.units import Unit
from emadeploy.contract.errors import CalibrationError, DataError, SpecError
from emadeploy.contract.files import write_file

BUDGETS = parse_budgets(None, ("semseg", "depth"))
FLOAT = {"semseg": {"miou": 50.0}, "depth": {"rel": 0.1}}
UNITS = (
    Unit("b1", ("b1.a", "b1.b"), "backbone", 6.0),
    Unit("b2", ("b2",), "backbone", 2.0),
    Unit("c", ("c",), "ctal.inter", 1.0),
    Unit("h", ("h",), "heads.depth", 1.0),
)
#: Points of mIoU that a node in int8 costs; CTAL loses the depth altogether.
HARM = {"b1.a": 0.25, "b1.b": 0.25, "b2": 1.0, "c": 0.125, "h": 0.0}
#: What higher precision costs by itself.
ROUNDING = 0.0625


class Network:
    def __init__(self) -> None:
        self.measured: list[frozenset[str]] = []
        self.probed: list[frozenset[str]] = []

    def measure(self, keep: frozenset[str]) -> dict[str, dict[str, float]]:
        self.measured.append(keep)
        harm = sum(harm for node, harm in HARM.items() if node not in keep)
        metrics = {"semseg": {"miou": 50 - ROUNDING - harm}}
        return metrics | ({"depth": {"rel": 0.1}} if "c" in keep else {})

    def probe(self, keep: frozenset[str]) -> dict[str, float]:
        self.probed.append(keep)
        return {"semseg": float(len(HARM) - len(keep)), "depth": 0.5 if "c" in keep else math.inf}


def table(**options: bool) -> tuple[SensitivityTable, Network]:
    network = Network()
    facts = {"model": "tiny", "frames": 4}
    return sensitivity(UNITS, network.measure, network.probe, BUDGETS, FLOAT, facts=facts, **options), network


def shown(found: SensitivityTable) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(found.table("harm"))
    return out.getvalue()


def test_each_section_is_measured_alone_and_left_out():
    found, network = table()
    everything = set(HARM)
    backbone = {"b1.a", "b1.b", "b2"}
    assert network.measured == [
        frozenset(),
        everything,
        everything - backbone,
        backbone,
        everything - {"c"},
        {"c"},
        everything - {"h"},
        {"h"},
    ]
    assert network.probed == [everything, everything - backbone, everything - {"c"}, everything - {"h"}]
    assert [row.section for row in found.rows] == ["backbone", "ctal.inter", "heads.depth"]
    assert [row.share for row in found.rows] == [0.8, 0.1, 0.1]
    assert [row.alone["semseg"] for row in found.rows] == [1.5625, 0.1875, 0.0625]
    assert [row.without["semseg"] for row in found.rows if row.without] == [0.1875, 1.5625, 1.6875]
    assert [row.error["semseg"] for row in found.rows] == [3, 1, 1]
    assert found.plain["semseg"] == 1.6875
    assert (found.floor["semseg"], found.floor_error["semseg"]) == (0.0625, 0)


def test_the_worst_section_of_a_task_is_the_one_that_harms_it_most_alone():
    found, _ = table()
    assert found.worst("semseg").section == "backbone"
    assert found.worst("depth").section == "ctal.inter"


def test_leaving_out_can_be_left_out():
    found, network = table(without=False)
    assert len(network.measured) == 5
    assert all(row.without is None for row in found.rows)
    assert found.to_dict()["sections"][0]["without"] is None
    assert "error" in shown(found)
    assert "without" not in shown(found)


def test_the_record_holds_everything_and_what_was_lost_is_null():
    found, _ = table()
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (record["schema"], record["model"], record["frames"]) == (1, "tiny", 4)
    assert record["tasks"]["depth"] == {"metric": "rel", "unit": "%", "allowed": 2.0}
    assert record["plain"] == {"semseg": 1.6875, "depth": None}
    assert (record["floor"], record["floor_error"]) == ({"semseg": 0.0625, "depth": 0.0}, {"semseg": 0.0, "depth": 0.5})
    assert record["sections"][1] == {
        "section": "ctal.inter",
        "share": 0.1,
        "alone": {"semseg": 0.1875, "depth": None},
        "error": {"semseg": 1.0, "depth": None},
        "without": {"semseg": 1.5625, "depth": 0.0},
    }


def test_the_table_fits_a_terminal_and_says_what_was_lost():
    lines = {line.split()[0]: line.split() for line in shown(table()[0]).splitlines() if line.strip()}
    assert lines["backbone"] == ["backbone", "80", "%", "+1.56", "+0.19", "+0.00", "lost"]
    assert lines["ctal.inter"] == ["ctal.inter", "10", "%", "+0.19", "+1.56", "lost", "+0.00"]
    assert lines["none"] == ["none", "in", "int8", "0", "%", "+0.06", "+0.00"]
    assert lines["all"] == ["all", "in", "int8", "100", "%", "+1.69", "lost"]


def test_progress_ends_when_everything_is_measured():
    network, seen = Network(), []
    report = lambda done, total: seen.append((done, total))  # noqa: E731
    sensitivity(UNITS, network.measure, network.probe, BUDGETS, FLOAT, progress=report)
    assert seen == [(done, 12) for done in range(1, 13)]


def test_what_cannot_be_measured_is_refused():
    network = Network()
    with pytest.raises(SpecError, match="no task"):
        sensitivity(UNITS, network.measure, network.probe, Budgets(()), FLOAT)
    with pytest.raises(SpecError, match="share a node"):
        sensitivity((*UNITS, Unit("x", ("c",), "s", 1.0)), network.measure, network.probe, BUDGETS, FLOAT)
    assert network.measured == []
    with pytest.raises(CalibrationError, match="no truth for depth"):
        sensitivity(UNITS, network.measure, network.probe, BUDGETS, {"semseg": {"miou": 50.0}})


def test_the_picture_is_written_in_one_step(tmp_path):
    picture = table()[0].picture()
    write_file(tmp_path / "harm.png", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["harm.png"]
    assert (tmp_path / "harm.png").read_bytes() == picture
    with pytest.raises(DataError, match="cannot be written"):
        write_file(tmp_path / "nowhere" / "harm.png", picture)
