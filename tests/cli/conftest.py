"""Fixtures for the commands."""

from pathlib import Path

import numpy as np
import pytest

from emadeploy.data.record import DatasetRecord


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Return DATA of two frames, everything being a wall two metres away; without edges."""
    for folder, value, shape in (("image", 0, (3,)), ("label", 11, ()), ("depth", 2, ()), ("normal", 0, (3,))):
        path = tmp_path / "val" / folder
        path.mkdir(parents=True)
        for index in range(2):
            np.save(path / f"{index}.npy", np.full((32, 64, *shape), value, np.uint8))
    record = DatasetRecord("nyuv2", "nyuv2-13", (32, 64), normals_frame="camera_optical")
    (tmp_path / "dataset.json").write_text(record.to_json())
    return f"nyuv2:{tmp_path}"
