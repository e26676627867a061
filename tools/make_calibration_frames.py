"""Make the bundled calibration frames: calibration/frames/rooms/, pictures of made rooms, and frames.json beside.

    python tools/make_calibration_frames.py [--data rooms:seed=11,count=32,size=288x384] [--output DIR]

The seed is one that neither training (1, 2, 3) nor evaluation (7, 2026) uses: frames that calibrate must not judge.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emadeploy import zoo
from emadeploy.calibrate.frames import RECORD
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import EmadeployError, one_line
from emadeploy.contract.manifest import file_digest
from emadeploy.data.rooms.render import GENERATOR_VERSION
from emadeploy.data.source import RoomsData, open_data
from emadeploy.pictures import opencv
from emadeploy.runtime.machine import usable_cores

SCHEMA = 1
DATA = str(RoomsData(seed=11, count=32))
#: Of jpg. At this one the ringing around edges is under the noise of the camera.
QUALITY = 95


def make(data: str, output: Path) -> Path:
    """Write the frames of ``data`` (its split 'train') and their record; return the folder. Raises EmadeployError."""
    cv2 = opencv()
    with progress("rendering") as report:
        dataset = open_data(data, split="train", workers=usable_cores(), progress=report)
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("*.jpg"):
        old.unlink()
    for index in range(len(dataset)):
        pixels_BGR = dataset[index].image[:, :, ::-1]
        encoded = cv2.imencode(".jpg", pixels_BGR, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        (output / f"{index:02}.jpg").write_bytes(encoded.tobytes())
    record = {
        "schema": SCHEMA,
        "data": dataset.description,
        "generator": GENERATOR_VERSION,
        "made": f"python tools/make_calibration_frames.py --data {data}",
        "format": f"jpg, quality {QUALITY}, by OpenCV {cv2.__version__}",
        "files": {path.name: file_digest(path) for path in sorted(output.glob("*.jpg"))},
    }
    (output / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return output


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the frames; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=DATA, help=f"[default: {DATA}]")
    parser.add_argument("--output", type=Path, default=zoo.assets("calibration") / "frames" / "rooms", metavar="DIR")
    asked = parser.parse_args(arguments)
    try:
        folder = make(asked.data, asked.output)
    except EmadeployError as error:
        print(f"make_calibration_frames: {one_line(error)}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(list(folder.glob('*.jpg')))} frames, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
