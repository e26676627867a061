"""Tiny data sets in the layouts of the real ones, for tests: every file as the makers' tools write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: Of the raw Cityscapes made here.
CITYSCAPES_SIZE = (16, 32)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write grey (H, W) of 8 or 16 bits, or RGB (H, W, 3), through OpenCV."""
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    order = pixels if pixels.ndim == 2 else pixels[:, :, ::-1]
    path.write_bytes(cv2.imencode(path.suffix, order)[1].tobytes())


def write_palette_png(path: Path, indices: np.ndarray) -> None:
    """Write indices (H, W) with a palette, as VOC has its labels."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = indices.shape
    picture = image.frombytes("P", (width, height), indices.astype(np.uint8).tobytes())
    picture.putpalette([(37 * i) % 256 for i in range(768)])
    picture.save(path)


def write_raw_cityscapes(raw: Path, *, nested: bool = False) -> list[tuple[str, str]]:
    """Write three frames to train, one to validate and one to test; return (split, name) of the labelled ones."""
    rng = np.random.default_rng(3)
    frames = [
        ("train", "aachen/aachen_000000_000019"),
        ("train", "aachen/aachen_000001_000019"),
        ("train", "bochum/bochum_000000_000313"),
        ("val", "munster/munster_000000_000019"),
        ("test", "bonn/bonn_000000_000019"),
    ]
    for split, name in frames:
        maps = {
            "leftImg8bit": rng.integers(0, 256, (*CITYSCAPES_SIZE, 3), np.uint8),
            "gtFine": rng.integers(0, 34, CITYSCAPES_SIZE).astype(np.uint8),
            "disparity": np.where(rng.random(CITYSCAPES_SIZE) < 0.2, 0, rng.integers(1, 32258, CITYSCAPES_SIZE)),
        }
        maps["disparity"] = maps["disparity"].astype(np.uint16)
        endings = {"leftImg8bit": "leftImg8bit", "gtFine": "gtFine_labelIds", "disparity": "disparity"}
        for package, ending in endings.items():
            root = raw / f"{package}_trainvaltest" / package if nested else raw / package
            write_png(root / split / f"{name}_{ending}.png", maps[package])
    return [frame for frame in frames if frame[0] != "test"]


def write_raw_nyuv2(
    raw: Path, *, train: Sequence[int] = (2, 4), val: Sequence[int] = (1, 3), sensor: bool = True, **changes: Any
) -> dict[str, np.ndarray]:
    """Write ``nyu_depth_v2_labeled.mat`` of four frames and ``splits.mat``; return the variables, frame first.

    ``images`` (N, 480, 640, 3), the others (N, 480, 640). ``changes`` replace variables.
    """
    h5py, scipy_io = pytest.importorskip("h5py"), pytest.importorskip("scipy.io")
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:480, 0:640]
    depths = np.stack([2 + k + rows / 480 + columns / 1280 for k in range(4)]).astype(np.float32)
    variables = {
        "images": rng.integers(0, 256, (4, 480, 640, 3), np.uint8),
        "depths": depths,
        "labels": rng.integers(0, 895, (4, 480, 640)).astype(np.uint16),
        **({"rawDepths": np.where(columns < 100, 0, depths).astype(np.float32)} if sensor else {}),
        **changes,
    }
    raw.mkdir(parents=True, exist_ok=True)
    with h5py.File(raw / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, values in variables.items():
            # MATLAB's arrays are stored with their axes in reverse order; the frame is its last.
            file[name] = np.moveaxis(values, 0, -1).transpose() if values.ndim > 2 else values
    scipy_io.savemat(raw / "splits.mat", {"trainNdxs": np.array(train)[:, None], "testNdxs": np.array(val)[:, None]})
    return variables


def part_annotation(objects: Sequence[tuple[int, np.ndarray, dict[str, np.ndarray]]]) -> dict[str, Any]:
    """Return what a file of PASCAL-Part holds: (class, mask, parts by name) of each object."""
    kinds = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    stored = np.zeros((1, len(objects)), dtype=kinds)
    for index, (kind, mask, parts) in enumerate(objects):
        of_parts = np.zeros((1, len(parts)), dtype=[("part_name", object), ("mask", object)])
        for number, (name, part_mask) in enumerate(parts.items()):
            of_parts[0, number] = (name, part_mask.astype(np.uint8))
        stored[0, index] = (
            "person" if kind == 15 else "cat",
            kind,
            mask.astype(np.uint8),
            of_parts if parts else np.zeros((0, 0)),
        )
    anno = np.zeros((1, 1), dtype=[("imname", object), ("objects", object)])
    anno[0, 0] = ("2008_000001", stored)
    return {"anno": anno}


def write_pascal(root: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write PASCAL_MT with one image to train and two to validate, the last without people; return what is in them."""
    scipy_io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(9)
    size = (12, 18)
    names = {"train": ["2008_000001"], "val": ["2008_000002", "2008_000003"]}
    made = {}
    for split, listed in names.items():
        lists = root / "ImageSets" / "Context" / f"{split}.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("".join(f"{name}\n" for name in listed))
        for name in listed:
            maps = {
                "image": np.full((*size, 3), 90, np.uint8),
                "semseg": np.where(rng.random(size) < 0.1, 255, rng.integers(0, 21, size)),
                "normals": rng.integers(0, 256, (*size, 3), np.uint8),
                "saliency": rng.integers(0, 256, size).astype(np.uint8),
                # A wall (440) beside the sky (360), which NYUv2 does not know.
                "labels": np.where(np.arange(size[1]) < 9, 440, 360) * np.ones(size, np.uint16),
            }
            head, leg = np.zeros(size, bool), np.zeros(size, bool)
            head[:4, :5], leg[4:9, :5] = True, True
            person = [(15, head | leg, {"hair": head, "luleg": leg})] if name != "2008_000003" else []
            folders = {"2008_000002": "pascal-context"}
            write_png(root / "JPEGImages" / f"{name}.jpg", maps["image"])
            write_palette_png(root / "semseg" / folders.get(name, "VOC12") / f"{name}.png", maps["semseg"])
            write_png(root / "normals_distill" / f"{name}.png", maps["normals"])
            write_png(root / "sal_distill" / f"{name}.png", maps["saliency"])
            for folder in ("human_parts", "pascal-context/trainval"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            objects = [*person, (8, ~head, {"head": ~head}), (15, head, {})]
            scipy_io.savemat(root / "human_parts" / f"{name}.mat", part_annotation(objects))
            scipy_io.savemat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": maps["labels"]})
            made[name] = maps
    return made


#: The ``dataset.yml`` of :func:`write_user_folder`.
DATASET_YML = """
image: images
splits: {train: train.txt, val: val.txt}
tasks:
  semseg: {files: labels, classes: [floor, wall, other], ignore: [9]}
  depth: {files: depth, scale: 0.001, invalid: [0, 65535]}
  normals: {files: normals}
  edge: {files: edges, positive: 255}
"""


def write_user_folder(root: Path, yml: str = DATASET_YML) -> dict[str, dict[str, np.ndarray]]:
    """Write a user's folder: 'a' and 'b' to train, 'c' to validate; 'b' lacks its depth, 'c' its edges."""
    rng = np.random.default_rng(11)
    size = (10, 14)
    made = {}
    for name in ("a", "b", "c"):
        normals = rng.normal(size=(*size, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        normals[0] = 0
        maps = {
            "images": rng.integers(0, 256, (*size, 3), np.uint8),
            "labels": rng.choice([0, 1, 2, 9], size).astype(np.uint8),
            "depth": rng.choice([0, 1500, 65535, 9000], size).astype(np.uint16),
            "normals": normals,
            "edges": (255 * rng.integers(0, 2, size)).astype(np.uint8),
        }
        for folder, array in maps.items():
            if (name, folder) in (("b", "depth"), ("c", "edges")):
                continue
            if folder == "normals":
                (root / folder).mkdir(parents=True, exist_ok=True)
                np.save(root / folder / f"{name}.npy", array)
            else:
                write_png(root / folder / f"{name}.png", array)
        made[name] = maps
    (root / "train.txt").write_text("b\na\n\n")
    (root / "val.txt").write_text("c")
    (root / "dataset.yml").write_text(yml)
    return made
