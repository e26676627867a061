"""The frames of the demo: made rooms with their truth, and the photographs that scikit-image's wheel carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emadeploy.cli.options import requires
from emadeploy.contract.errors import DataError
from emadeploy.data.sample import Dataset, Sample

#: A seed of the demo's own: its rooms are neither trained on nor what the best checkpoint was chosen by.
_SEED = 2026

# Calibration of the Motorcycle pair at the resolution that scikit-image ships (a quarter of the benchmark's), as the
# docstring of skimage.data.stereo_motorcycle gives it.
_FOCAL_PX = 994.978
_BASELINE_M = 0.193001
_PRINCIPAL_DX_PX = 31.086  # between the principal points of the two cameras, which the disparity does not hold


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph, with the truth that there is; ``credit`` says whose it is, from where, and under which terms."""

    sample: Sample
    title: str
    credit: str


def rooms(count: int, size: tuple[int, int], workers: int, progress: Callable[[int, int], None]) -> Dataset:
    """Return ``count`` made rooms of ``size`` (height, width) that no model was trained on; see `data.open_data`."""
    from emadeploy.data.source import open_data

    height, width = size
    text = f"rooms:seed={_SEED},count={count},size={height}x{width}"
    return open_data(text, split="val", workers=workers, progress=progress)


def photographs() -> list[Photograph]:
    """Return the photographs, that with a true depth first. Raises BackendMissing, DataError where one is not there."""
    with requires("the demo", "demo"):
        from skimage import data
    try:
        left_HW3, _, disparity_HW = data.stereo_motorcycle()  # type: ignore[no-untyped-call]
        others = {name: getattr(data, name)() for name in _OTHERS}
    except (OSError, ImportError, ValueError) as error:
        # Releases that lack a picture in the wheel fetch it, which this command promises not to need.
        raise DataError(f"scikit-image's photographs are not in its installation: {error}; reinstall it") from None
    found = [
        Photograph(
            Sample("motorcycle", left_HW3, {"depth": motorcycle_depth(disparity_HW)}),
            "Motorcycle",
            "Middlebury Stereo Datasets 2014, Motorcycle, left view at a quarter of its size, with its ground-truth "
            "disparity: D. Scharstein, H. Hirschmüller, Y. Kitajima, G. Krathwohl, N. Nešić, X. Wang, P. Westling, "
            "High-resolution stereo datasets with subpixel-accurate ground truth, GCPR 2014. From the wheel of "
            "scikit-image.",
        )
    ]
    for name, (title, credit) in _OTHERS.items():
        found.append(Photograph(Sample(name, others[name], {}), title, f"{credit}. From the wheel of scikit-image."))
    return found


#: Function of skimage.data -> title, credit.
_OTHERS = {
    "coffee": ("Coffee cup", "Photograph by Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0"),
    "chelsea": ("Chelsea the cat", "Photograph by Stéfan van der Walt; CC0"),
    "astronaut": ("Eileen Collins", "NASA Great Images; public domain"),
}


def motorcycle_depth(disparity_HW: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the depth in metres (H, W) float32 of the Motorcycle pair's disparity in pixels; 0 where it has none."""
    offset_HW = disparity_HW.astype(np.float64) + _PRINCIPAL_DX_PX
    valid_HW = np.isfinite(offset_HW) & (offset_HW > 0)
    depth_HW = np.zeros(disparity_HW.shape, np.float32)
    depth_HW[valid_HW] = _BASELINE_M * _FOCAL_PX / offset_HW[valid_HW]
    return depth_HW
