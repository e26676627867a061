"""What a Jetson tells of itself, from fake trees of four boards."""

from pathlib import Path

import pytest
from jetson_trees import AGX_ORIN, ORIN_NANO, THOR, XAVIER_NX, Board, fake_nvpmodel, make_tree, script

from emadeploy.bench.jetson import read_jetson
from emadeploy.bench.jetson.facts import jetpack_of, parse_power_mode


@pytest.mark.parametrize(
    ("board", "chip", "capability", "l4t", "jetpack"),
    [
        (XAVIER_NX, "tegra194", "7.2", "35.4.1", "5.1.2"),
        (ORIN_NANO, "tegra234", "8.7", "36.4.4", "6.2.1"),
        (AGX_ORIN, "tegra234", "8.7", "39.2.0", "7.2"),
        (THOR, "tegra264", "11.0", "38.2.0", "7.0"),
    ],
)
def test_each_board_is_known(tmp_path: Path, board: Board, chip: str, capability: str, l4t: str, jetpack: str) -> None:
    command = fake_nvpmodel(tmp_path, "NV Power Mode: MAXN\n0")
    jetson = read_jetson(make_tree(tmp_path / "root", board, locked=True), nvpmodel=command)
    assert jetson is not None
    assert jetson.model == board.model
    assert (jetson.chip, jetson.compute_capability, jetson.l4t, jetson.jetpack) == (chip, capability, l4t, jetpack)
    assert (jetson.power_mode, jetson.power_mode_id, jetson.locked) == ("MAXN", 0, True)
    assert jetson.gpu is not None
    assert jetson.gpu.mhz == board.max_mhz
    assert [clock.name for clock in jetson.cpus] == ["cpu0", "cpu1"]
    assert jetson.notes == ()


def test_a_machine_that_is_none(tmp_path: Path) -> None:
    assert read_jetson(tmp_path) is None
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert read_jetson(tmp_path) is None


def test_clocks_that_are_not_locked_are_a_warning_that_names_them(tmp_path: Path) -> None:
    command = fake_nvpmodel(tmp_path, "NV Power Mode: 15W\n0")
    jetson = read_jetson(make_tree(tmp_path / "root", ORIN_NANO, locked=False, cpus=6), nvpmodel=command)
    assert jetson is not None
    assert jetson.locked is False
    [note] = jetson.notes
    assert "GPU 306 to 1020 MHz, cpu0 730 to 1728 MHz, 5 more" in note
    assert "jetson_clocks" in note


def test_one_loose_cpu_is_enough_not_to_be_locked(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "root", THOR, locked=True)
    (root / "sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq").write_text("972000\n")
    jetson = read_jetson(root, nvpmodel=fake_nvpmodel(tmp_path, "NV Power Mode: 120W\n1"))
    assert jetson is not None
    assert jetson.locked is False


def test_what_is_not_told_is_said(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "root", AGX_ORIN)
    (root / "etc/nv_tegra_release").write_text("# R99 (release), REVISION: 1.0, GCID: 1\n")
    (root / "sys/class/devfreq/17000000.gpu/cur_freq").unlink()
    jetson = read_jetson(root, nvpmodel=str(tmp_path / "absent"))
    assert jetson is not None
    assert (jetson.jetpack, jetson.power_mode, jetson.gpu, jetson.locked) == (None, None, None, None)
    assert "JetPack is unknown: L4T 99.1.0" in jetson.notes
    assert any("absent is not here" in note for note in jetson.notes)
    assert any("clock of the GPU cannot be read" in note for note in jetson.notes)


def test_an_nvpmodel_that_refuses_is_quoted(tmp_path: Path) -> None:
    command = script(tmp_path / "nvpmodel", "echo 'NVPM ERROR: permission denied' >&2; exit 1")
    jetson = read_jetson(make_tree(tmp_path / "root", ORIN_NANO, locked=True), nvpmodel=command)
    assert jetson is not None
    assert jetson.power_mode is None
    assert "NVPM ERROR: permission denied" in jetson.notes[0]


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2", ("MAXN_SUPER", 2)),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", ("MODE_15W_6CORE", 2)),
        ("NV Fan Mode:quiet\nNV Power Mode: 15W\n0", ("15W", 0)),
        ("NV Power Mode: MAXN", ("MAXN", None)),
        ("2\n", (None, None)),
        ("", (None, None)),
    ],
)
def test_answers_of_nvpmodel(answer: str, mode: tuple[str | None, int | None]) -> None:
    assert parse_power_mode(answer) == mode


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("36.4.7", "6.1 or 6.2.x"),
        ("36.4.0", "6.1"),
        ("36.3.0", "6.0"),
        ("36.40.1", None),
        ("32.7.1", None),
        (None, None),
    ],
)
def test_jetpack_of_l4t(l4t: str | None, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack
