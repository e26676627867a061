"""Write docs/rooms.jpg: made rooms as an artifact of the shipped model sees them, one row a room.

python tools/readme_picture.py emanet-rooms.onnxruntime-fp32
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from emadeploy import load
from emadeploy.contract.colour import colourise
from emadeploy.data.source import open_data

ROOMS = "rooms:seed=7,count=12"
CHOSEN = (1, 4, 8)


def main() -> None:
    """Run the artifact on the chosen rooms and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "rooms.jpg")
    arguments = parser.parse_args()
    rooms = open_data(ROOMS)
    rows = []
    with load(arguments.artifact) as perception:
        for index in CHOSEN:
            image = rooms[index].image
            maps = perception(image).maps
            pictures = [image] + [colourise(maps[task.name], task) for task in perception.spec.tasks]
            rows.append(np.hstack(pictures))
    sheet = cv2.resize(np.vstack(rows), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    arguments.output.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(arguments.output), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise OSError(f"{arguments.output} cannot be written")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
