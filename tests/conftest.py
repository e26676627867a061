"""Fixtures for all tests."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def emadeploy_command() -> list[str]:
    """Return the argv of the installed command: the console script of this environment."""
    script = Path(sys.executable).with_name("emadeploy")
    return [str(script)] if script.exists() else [sys.executable, "-m", "emadeploy.cli.app"]
