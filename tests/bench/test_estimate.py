"""Estimates: layers whose times are computed by hand, a bound that is one, and the table of devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.bench.devices import devices, find_device
from emadeploy.bench.estimate import (
    ARITHMETIC_SHARE,
    GRANULES,
    MOST_FILLING,
    RUNTIME_MB,
    SUSTAINED,
    SYSTEM_MB,
    Machine,
    bound_seconds,
    estimate,
    filling,
    fits,
    likely_seconds,
)
from emadeploy.contract.errors import DeviceError
from emadeploy.contract.work import ARITHMETIC, KINDS, PRECISIONS, Layer, Work

#: 10^12 multiply-accumulates in int8 per second, 10^10 bytes per second, a cache of 1000 bytes.
MACHINE = Machine(
    {"int8": 1e12, "fp16": 5e11, "fp32": 2.5e11},
    1e10,
    1000,
    {"int8": 0.5, "fp16": 0.5, "fp32": 0.5},
    0.8,
    {"int8": (32, 32), "fp16": (16, 16), "fp32": (16, 16)},
    launch=1e-6,
)
CONV = Layer("c", "conv", "backbone", "int8", 10**9, 64, 64, (10**5,), (10**5,), 10**4)


def test_arithmetic_that_takes_longer_than_bytes() -> None:
    assert bound_seconds(CONV, MACHINE) == pytest.approx(1e-3)
    assert likely_seconds(CONV, MACHINE) == pytest.approx(1e-3 / (0.5 * ARITHMETIC_SHARE["conv"]) + 1e-6)


def test_bytes_that_take_longer_than_arithmetic() -> None:
    layer = replace(CONV, macs=10**6, reads=(10**7, 500), writes=(10**6,), weights=2000)
    # 500 bytes stay in the cache; weights come from memory once for each frame.
    assert bound_seconds(layer, MACHINE) == pytest.approx((10**7 + 10**6 + 2000) / 1e10)
    assert likely_seconds(layer, MACHINE) == pytest.approx((10**7 + 500 + 10**6 + 2000) / 0.8e10 + 1e-6)


def test_what_moves_or_resizes_costs_nothing_in_the_bound() -> None:
    for kind in set(KINDS) - set(ARITHMETIC):
        layer = Layer("m", kind, "ctal", "fp16", reads=(10**7,), writes=(10**7,))
        assert bound_seconds(layer, MACHINE) == 0
        assert likely_seconds(layer, MACHINE) >= 2 * 10**7 / 0.8e10


def test_precisions_have_their_own_rates_and_bf16_runs_in_float16() -> None:
    int8, fp16, bf16 = (bound_seconds(replace(CONV, precision=p), MACHINE) for p in ("int8", "fp16", "bf16"))
    assert (fp16, bf16) == (2 * int8, 2 * int8)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [(64, 64, 1.0), (16, 32, 2.0), (18, 36, 32 / 18 * 64 / 36), (3, 1, MOST_FILLING), (33, 32, 64 / 33)],
)
def test_channels_are_filled_up_to_what_is_taken_at_once(inner: int, outer: int, expected: float) -> None:
    assert filling(replace(CONV, inner=inner, outer=outer), (32, 32)) == pytest.approx(expected)


def test_depthwise_convolutions_run_elsewhere() -> None:
    layer = replace(CONV, kind="depthwise", inner=1, outer=1)
    assert filling(layer, (32, 32)) == 1
    assert likely_seconds(layer, MACHINE) == pytest.approx(1e-3 / (0.5 * ARITHMETIC_SHARE["depthwise"]) + 1e-6)


def test_the_sum_of_the_layers() -> None:
    move = Layer("m", "move", "ctal", "fp16", reads=(10**6,), writes=(10**6,))
    found = estimate(Work((CONV, move, CONV), 20_000_000, 30_000_000), MACHINE)
    assert found.bound_ms == pytest.approx(2.0)
    assert found.likely_ms == pytest.approx(sum(found.kinds_ms.values()))
    assert found.likely_ms == pytest.approx(sum(found.branches_ms.values()))
    assert set(found.branches_ms) == {"backbone", "ctal"}
    assert found.kinds_ms["move"] == pytest.approx(1e3 * likely_seconds(move, MACHINE))
    assert found.network_mb == pytest.approx(50)
    assert found.memory_mb == pytest.approx(50 + RUNTIME_MB)


COUNT = st.integers(0, 10**9)


@given(
    st.sampled_from(sorted(devices())),
    st.sampled_from(KINDS),
    st.sampled_from(PRECISIONS),
    st.integers(0, 10**10),
    st.integers(1, 512),
    st.integers(1, 512),
    st.lists(COUNT, max_size=3),
    COUNT,
)
def test_the_bound_is_never_above_what_is_likely(
    device: str, kind: str, precision: str, macs: int, inner: int, outer: int, maps: list[int], weights: int
) -> None:
    layer = Layer("l", kind, "b", precision, macs, inner, outer, tuple(maps), (), weights)
    machine = Machine.of(find_device(device))
    assert 0 <= bound_seconds(layer, machine) <= likely_seconds(layer, machine)


def test_memory_fits_or_does_not() -> None:
    device = find_device("jetson-orin-nano-4gb")
    room = int((4000 - SYSTEM_MB - RUNTIME_MB) * 1e6)
    machine = Machine.of(device)
    assert fits(estimate(Work((CONV,), 0, room - 10**6), machine), device)
    assert not fits(estimate(Work((CONV,), 10**6, room + 10**6), machine), device)


def test_the_table_of_devices() -> None:
    table = devices()
    assert len(table) == 12
    nano = table["jetson-orin-nano-8gb"]
    assert (nano.compute_capability, nano.int8_tops, nano.fp16_tflops, nano.bandwidth_gbs) == ("8.7", 20, 10.2, 68)
    # A multiply-accumulate counts as two.
    assert nano.macs_per_second["int8"] == pytest.approx(10e12)
    for name, device in table.items():
        assert name == device.name
        assert 0 < device.fp32_tflops < device.fp16_tflops < device.int8_tops
        assert set(device.third_party) <= set(Machine.of(device).macs_per_second) | set(vars(device))
        assert Machine.of(device).macs_per_second.keys() == SUSTAINED.keys() == GRANULES.keys()


def test_dense_rates_of_orin_are_those_of_their_clocks() -> None:
    # SMs x 4096 operations x clock: 4 and 8 (Nano, NX), 14 and 16 (AGX).
    for name, sms in (("jetson-orin-nano-4gb", 4), ("jetson-orin-nano-8gb", 8), ("jetson-agx-orin-64gb", 16)):
        device = find_device(name)
        assert device.int8_tops == pytest.approx(sms * 4096 * device.gpu_mhz * 1e6 / 1e12, rel=0.03)
        assert device.fp16_tflops == pytest.approx(device.int8_tops / 2, rel=0.03)


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DeviceError, match=r"did you mean jetson-orin-nano-8gb.*jetson-thor-t5000, and jetson"):
        find_device("jetson-orin-nano-8g")
    with pytest.raises(DeviceError, match="'jetson-nano' is unknown"):
        find_device("jetson-nano")
