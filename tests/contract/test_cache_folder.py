"""Where the cache is."""

from pathlib import Path

import pytest

from emadeploy.contract.cache import default_cache_dir
from emadeploy.contract.errors import DataError


def test_the_variable_chooses_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.setenv("EMADEPLOY_CACHE", "~/elsewhere")
    assert default_cache_dir() == Path.home() / "elsewhere"


@pytest.mark.parametrize("value", [None, ""])
def test_it_is_in_the_home_folder_where_the_variable_says_nothing(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("EMADEPLOY_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("EMADEPLOY_CACHE", value)
    assert default_cache_dir() == Path.home() / ".cache" / "emadeploy"


def test_without_a_home_folder_it_must_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMADEPLOY_CACHE", raising=False)

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(DataError, match=r"~/.cache/emadeploy cannot be found: Could not .*\$EMADEPLOY_CACHE chooses"):
        default_cache_dir()
