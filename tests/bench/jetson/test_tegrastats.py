"""Lines of tegrastats: recorded ones of four platforms, generated ones, and nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.bench.jetson.sensors import module_rail
from emadeploy.bench.jetson.tegrastats import Stats, parse_line

XAVIER_NX = (
    "RAM 2402/6850MB (lfb 8x4MB) SWAP 0/3425MB (cached 0MB) CPU [2%@1190,0%@1190,off,off,off,off] EMC_FREQ 0%@1600 "
    "GR3D_FREQ 0%@[114] VIC_FREQ 0%@115 APE 150 AUX@44.5C CPU@46.5C thermal@45.4C AO@-256C GPU@45C PMIC@50C "
    "VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 980mW/990mW"
)
ORIN_NANO = (
    "03-14-2025 09:12:44 RAM 6712/7620MB (lfb 12x4MB) SWAP 12/3810MB (cached 0MB) CPU [24%@1510,31%@1510,off] "
    "EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] cpu@57.281C soc2@56.812C cv0@-256C gpu@58.625C tj@58.312C "
    "VDD_IN 16321mW/11204mW VDD_CPU_GPU_CV 6200mW/3400mW VDD_SOC 3100mW/2900mW"
)
AGX_ORIN = (
    "RAM 10211/62841MB (lfb 40x4MB) CPU [3%@2201] GR3D_FREQ 12%@[1300,1300] cpu@52.968C/52.968C gpu@48.5C/48.25C "
    "VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 988mW/988mW/988mW VIN_SYS_5V0 3968mW/3968mW/3968mW NC 0mW/0mW/0mW"
)
THOR = (
    "RAM 5120/125772MB (lfb 3x4MB) cpu@41C gpu@42.5C VDD_GPU 18000mW VDD_CPU_SOC_MSS 10800mW VIN_SYS_5V0 2500mW "
    "VIN 42000mW"
)


def test_xavier_nx() -> None:
    stats = parse_line(XAVIER_NX)
    assert stats.ram_mb == (2402, 6850)
    assert (stats.gpu_percent, stats.gpu_mhz, stats.emc_percent, stats.emc_mhz) == (0, 114, 0, 1600)
    assert stats.temperatures_c == {"aux": 44.5, "cpu": 46.5, "thermal": 45.4, "gpu": 45.0, "pmic": 50.0}
    assert stats.rails_w == {"VDD_IN": 2.763, "VDD_CPU_GPU_CV": 0.65, "VDD_SOC": 0.98}
    assert module_rail(stats.rails_w) == "VDD_IN"


def test_orin_nano_with_a_time_in_front() -> None:
    stats = parse_line(ORIN_NANO)
    assert (stats.gpu_percent, stats.gpu_mhz, stats.emc_percent, stats.emc_mhz) == (99, 612, 61, 2133)
    assert stats.temperatures_c == {"cpu": 57.281, "soc2": 56.812, "gpu": 58.625, "tj": 58.312}
    assert stats.rails_w["VDD_IN"] == 16.321
    assert module_rail(stats.rails_w) == "VDD_IN"


def test_agx_orin_has_rails_and_no_sum() -> None:
    stats = parse_line(AGX_ORIN)
    assert (stats.gpu_percent, stats.gpu_mhz, stats.emc_percent) == (12, 1300, None)
    assert stats.temperatures_c == {"cpu": 52.968, "gpu": 48.5}
    assert stats.rails_w == {"VDD_GPU_SOC": 5.139, "VDD_CPU_CV": 0.988, "VIN_SYS_5V0": 3.968}
    assert module_rail(stats.rails_w) is None


def test_thor_without_loads() -> None:
    stats = parse_line(THOR)
    assert (stats.gpu_percent, stats.gpu_mhz, stats.emc_percent, stats.emc_mhz) == (None, None, None, None)
    assert stats.rails_w["VIN"] == 42.0
    assert module_rail(stats.rails_w) == "VIN"


@pytest.mark.parametrize(
    ("field", "load"),
    [
        ("GR3D_FREQ 0%", (0, None)),
        ("GR3D_FREQ 7%@114", (7, 114)),
        ("gr3d_freq 7%@[114]", (7, 114)),
        ("GR3D_FREQ @[114]", (None, 114)),
    ],
)
def test_forms_of_the_load(field: str, load: tuple[int | None, int | None]) -> None:
    stats = parse_line(f"RAM 1/2MB {field} cpu@40C")
    assert (stats.gpu_percent, stats.gpu_mhz) == load


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert isinstance(parse_line(text), Stats)


@given(st.text(alphabet="RAMGR3D_FREQVINmWCNC@%/[],.-0123456789 \u0663\u00b2", max_size=200))
def test_no_text_that_looks_like_a_line_raises(text: str) -> None:
    assert isinstance(parse_line(text), Stats)


_NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True)
_RAILS = st.dictionaries(_NAMES.filter(lambda name: name not in ("NC", "RAM", "APE")), st.integers(0, 200_000))
_ZONES = st.dictionaries(_NAMES.map(str.lower), st.integers(-40_000, 150_000).map(lambda value: value / 1e3))
_PERCENT, _MHZ = st.integers(0, 100), st.integers(1, 4000)


@given(
    st.sampled_from(["", "01-02-2026 03:04:05 "]),
    st.one_of(st.none(), st.tuples(_PERCENT, _MHZ)),
    st.one_of(st.none(), st.tuples(_PERCENT, _MHZ)),
    _ZONES,
    _RAILS,
    st.integers(0, 2),
    st.booleans(),
)
def test_what_a_line_was_made_of_comes_back(
    stamp: str, gpu: Any, emc: Any, zones: dict[str, float], rails: dict[str, int], means: int, upper: bool
) -> None:
    fields = [f"{stamp}RAM 5/7MB (lfb 1x4MB)", "CPU [1%@2,off]"]
    fields += [f"EMC_FREQ {emc[0]}%@{emc[1]}"] if emc else []
    fields += [f"GR3D_FREQ {gpu[0]}%@[{gpu[1]},{gpu[1]}]"] if gpu else []
    fields += [
        f"{name.upper() if upper else name}@{value}C" + f"/{value}C" * min(means, 1) for name, value in zones.items()
    ]
    fields += ["cv9@-256C", "NC 0mW" + "/0mW" * means]
    fields += [f"{name} {value}mW" + f"/{value}mW" * means for name, value in rails.items()]
    stats = parse_line(" ".join(fields))
    assert stats.ram_mb == (5, 7)
    assert (stats.gpu_percent, stats.gpu_mhz) == (gpu or (None, None))
    assert (stats.emc_percent, stats.emc_mhz) == (emc or (None, None))
    assert stats.temperatures_c == {name: value for name, value in zones.items() if name != "cv9"}
    assert stats.rails_w == {name: value / 1e3 for name, value in rails.items()}
