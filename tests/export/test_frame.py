"""Preprocessing and decoding inside the graph against the contract's, as PyTorch modules."""

import numpy as np
import pytest
import torch

from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, TaskSpec
from emadeploy.export.frame import Decode, FrameToImage

CHANNELS = {"semseg": 5, "depth": 1, "normals": 3, "edge": 1, "saliency": 2, "human_parts": 7}


@pytest.mark.parametrize("spec", [InputSpec(32, 64), InputSpec(32, 64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))])
@pytest.mark.parametrize("frame_size", [(32, 64), (20, 30), (75, 121)], ids=["same", "smaller", "larger"])
def test_frame_to_image(spec: InputSpec, frame_size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*frame_size, 3), dtype=np.uint8)
    found = FrameToImage(spec)(torch.from_numpy(frame)).numpy()
    np.testing.assert_allclose(found, preprocess(frame, spec), atol=2e-5)


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("frame_size", [(32, 64), (45, 70)], ids=["same", "larger"])
def test_decode(kind: str, frame_size: tuple[int, int]) -> None:
    task = TaskSpec(kind, CHANNELS[kind])
    raw = np.random.default_rng(0).normal(0, 3, (1, task.channels, 32, 64)).astype(np.float32)
    raw[:, :, 5:9, 5:9] = 0  # no direction there, and equal scores
    wanted = decode(raw, task, frame_size)
    found = Decode(task, frame_size)(torch.from_numpy(raw)).numpy()
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if kind in ("semseg", "human_parts"):
        assert np.mean(found == wanted) > 0.999
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-4)  # weights of float32 positions, here and there
