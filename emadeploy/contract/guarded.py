"""Functions behind optional packages: named by import strings, so that listing them imports nothing."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from emadeploy.contract.errors import BackendMissing


@dataclass(frozen=True)
class Guarded:
    """Where a function is, the package that its module needs, and the extra of emadeploy that installs the package."""

    function: str  # "module:function"
    package: str
    extra: str

    def load(self, who: str) -> Any:
        """Import the function for ``who`` ("engine 'onnxruntime'"), as messages call it.

        Raises BackendMissing where the package is not installed, or installed and broken.
        """
        module, name = self.function.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != self.package:
                raise
            raise BackendMissing.of(who, self.package, self.extra) from None
        except ImportError as error:
            # Installed, and broken: another interpreter's wheel, a missing system library.
            raise BackendMissing(f"{who}: {self.package} is installed, but its import fails: {error}") from None
