"""Power, energy, temperatures and throttling: from readings made by hand, fake trees, and a fake tegrastats."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from jetson_trees import AGX_ORIN, ORIN_NANO, THOR, XAVIER_NX, make_tree, script, write

from emadeploy.bench.jetson import PowerWatch
from emadeploy.bench.jetson.power import LEAST_READINGS, energy, power_record
from emadeploy.bench.jetson.sensors import Sample, Sensors, module_rail


def steady(watt: float, *, rail: str = "VDD_IN", until: int = 10, **fields: object) -> list[Sample]:
    """Return a reading each second, 0 to ``until``."""
    return [Sample(float(second), {rail: watt}, **fields) for second in range(until + 1)]  # type: ignore[arg-type]


def test_rails_are_voltage_times_current(tmp_path: Path) -> None:
    sample = Sensors(make_tree(tmp_path, ORIN_NANO)).read(1.5)
    assert sample.seconds == 1.5
    assert sample.rails_w == pytest.approx({"VDD_IN": 15.0, "VDD_CPU_GPU_CV": 6.0, "VDD_SOC": 3.5})
    # The zone at -256 degrees is switched off.
    assert sample.temperatures_c == {"cpu": 58.312, "gpu": 58.625, "tj": 58.625}
    assert (sample.gpu_mhz, sample.gpu_max_mhz) == (1020, 1020)
    assert sample.events == {"oc1": 7, "oc2": 7, "oc3": 7}
    assert sample.alerts == ()


def test_names_of_jetpack_5_are_those_of_later_ones(tmp_path: Path) -> None:
    assert Sensors(make_tree(tmp_path, XAVIER_NX)).read(0).temperatures_c == {"cpu": 46.5, "gpu": 45.0}


def test_rails_that_are_not_connected_or_off_are_left_out(tmp_path: Path) -> None:
    root = make_tree(tmp_path, AGX_ORIN)
    (root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr2_input").unlink()
    assert Sensors(root).rails == ("VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")


def test_which_rail_is_the_module(tmp_path: Path) -> None:
    assert module_rail(Sensors(make_tree(tmp_path / "thor", THOR)).rails) == "VIN"
    assert module_rail(Sensors(make_tree(tmp_path / "agx", AGX_ORIN)).rails) is None
    assert module_rail(["VIN_SYS_5V0"]) is None


def test_energy_of_a_ramp_is_the_area_under_it() -> None:
    ramp = [Sample(float(second), {"VDD_IN": 2.0 * second}) for second in range(11)]
    assert energy(ramp, (0, 10), "VDD_IN") == pytest.approx(100)
    # Between readings power is a straight line: from 2.5 to 7.5 the integral of 2 t.
    assert energy(ramp, (2.5, 7.5), "VDD_IN") == pytest.approx(7.5**2 - 2.5**2)


def test_few_readings_give_no_energy() -> None:
    samples = steady(5)
    assert energy(samples, (0.5, LEAST_READINGS - 0.5), "VDD_IN") is None
    record = power_record(samples, [(0.5, 2.5)], frames=3)
    assert record.energy_j is None
    assert any("fewer than" in note for note in record.notes)


def test_energy_is_per_frame_over_all_spans_and_idle_is_apart() -> None:
    idle = [Sample(float(second), {"VDD_IN": 4.0}) for second in range(-5, 0)]
    record = power_record(steady(12, until=20), [(0, 6), (10, 16)], frames=48, idle=idle)
    assert record.energy_j == pytest.approx(12 * 12 / 48)
    assert record.power_w == pytest.approx(12)
    assert record.idle_w == {"VDD_IN": 4.0}
    assert record.rail == "VDD_IN"
    assert record.notes == ()
    assert record.to_dict()["readings"] == 14


def test_without_a_rail_of_the_module_rails_are_apart() -> None:
    record = power_record(steady(5, rail="VDD_GPU_SOC"), [(0, 10)], frames=10)
    assert (record.energy_j, record.power_w, record.rail) == (None, None, None)
    assert record.rails_w == {"VDD_GPU_SOC": 5.0}
    assert "no rail feeds the whole module: VDD_GPU_SOC" in record.notes[0]


def test_throttling_is_found() -> None:
    calm = Sample(0.0, {"VDD_IN": 5}, {"gpu": 50}, 1020, 1020, {"oc1": 3, "oc3": 1})
    hot = Sample(1.0, {"VDD_IN": 5}, {"gpu": 99}, 612, 1020, {"oc1": 3, "oc3": 5}, ("gpu-throttle-alert",))
    record = power_record([calm, hot], [(0, 1)], frames=1)
    events, alert, clock = record.throttling
    assert events.startswith("4 over-current events (oc3)")
    assert alert.startswith("gpu-throttle-alert in 50 %")
    assert clock == "the GPU ran below 1020 MHz in 50 % of the readings, at 612 least"
    assert record.temperature_c == {"start": {"gpu": 50}, "end": {"gpu": 99}, "highest": {"gpu": 99.0}}


def test_events_between_two_stretches_are_those_of_others() -> None:
    counts = {0: 0, 1: 1, 5: 7, 6: 9}
    samples = [Sample(float(second), {"VDD_IN": 5}, events={"oc3": count}) for second, count in counts.items()]
    [line] = power_record(samples, [(0, 1), (5, 6)], frames=1).throttling
    assert line.startswith("3 over-current events (oc3)")


def test_a_device_at_ease_has_no_throttling() -> None:
    samples = steady(5, gpu_mhz=1019.0, gpu_max_mhz=1020.0, events={"oc1": 3})
    assert power_record(samples, [(0, 10)], frames=1).throttling == ()


def test_the_watch_reads_files_and_ends(tmp_path: Path) -> None:
    root = make_tree(tmp_path, ORIN_NANO)
    with PowerWatch(root, interval=0.005, tegrastats=None) as watch:
        watch.idle(0.1)
        start = time.perf_counter()
        write(root, "sys/class/hwmon/hwmon5/oc3_event_cnt", 7)
        _wait_for(watch, start, LEAST_READINGS)
        write(root, "sys/class/hwmon/hwmon5/oc3_event_cnt", 9)
        write(root, "sys/class/thermal/cooling_device1/cur_state", 1)
        _wait_for(watch, time.perf_counter(), 2)
        end = time.perf_counter()
    record = watch.over([(start, end)], frames=10)
    assert record.energy_j == pytest.approx(15 * (end - start) / 10)
    assert record.idle_w["VDD_IN"] == pytest.approx(15)
    assert any("2 over-current events (oc3)" in line for line in record.throttling)
    assert any("gpu-throttle-alert" in line for line in record.throttling)


def test_without_files_tegrastats_is_read_and_ended(tmp_path: Path) -> None:
    line = "RAM 1/2MB GR3D_FREQ 99%@[612] gpu@58.625C VDD_IN 16000mW/11204mW"
    command = script(
        tmp_path / "tegrastats", f'echo $$ > {tmp_path}/pid\nwhile true; do echo "{line}"; sleep 0.01; done'
    )
    with PowerWatch(tmp_path / "nothing", interval=0.01, tegrastats=command) as watch:
        start = time.perf_counter()
        _wait_for(watch, start, LEAST_READINGS + 1)
        end = time.perf_counter()
    record = watch.over([(start, end)], frames=1)
    assert record.energy_j == pytest.approx(16 * (end - start))
    assert record.temperature_c["end"] == {"gpu": 58.625}
    assert not (Path("/proc") / (tmp_path / "pid").read_text().strip()).exists()


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    with PowerWatch(tmp_path, interval=0.005, tegrastats=str(tmp_path / "absent")) as watch:
        start = time.perf_counter()
        _wait_for(watch, start, 2)
        end = time.perf_counter()
    record = watch.over([(start, end)], frames=1)
    assert record.energy_j is None
    assert record.notes == ("no rail of the power monitor could be read: no energy",)


def test_no_reading_in_the_time_is_said() -> None:
    record = power_record(steady(5), [(20, 30)], frames=1)
    assert record.notes == ("no reading of power fell into the time that was measured",)


def _wait_for(watch: PowerWatch, start: float, count: int) -> None:
    """Wait until ``count`` readings were taken after ``start``."""
    patience = time.monotonic() + 30
    while sum(sample.seconds > start for sample in watch.samples) < count:
        assert time.monotonic() < patience, "no reading came"
        time.sleep(0.002)
