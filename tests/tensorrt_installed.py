"""Fixtures: TensorRT installed at one of its versions, as its recorded surface has it, here or in new processes too."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorrt_fake import fake

from emadeploy.runtime.trt.library import Library, load_library


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Library]]:
    """Return a function that installs a fake version ('tensorrt-8.6') and loads it as the product does."""

    def install(version: str, **world: Any) -> Library:
        module = fake(version, **world)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        load_library.cache_clear()
        return load_library(module.__name__)

    yield install
    load_library.cache_clear()


@pytest.fixture
def everywhere(
    installed: Callable[..., Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Library]:
    """Return a function that installs a version for this process and for those that it starts."""
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))

    def install(version: str, **world: Any) -> Library:
        library = installed(version, **world)
        packages = tmp_path / f"packages-{version}"
        packages.mkdir(exist_ok=True)
        text = f"import tensorrt_fake\nglobals().update(vars(tensorrt_fake.fake({version!r}, **{world!r})))\n"
        (packages / f"{library.name}.py").write_text(text)
        tests = Path(__file__).parent
        monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{tests}")
        return library

    return install
