"""How far is the way ahead free? Depth says where things are, labels which of them is the floor.

python examples/obstacle_distance.py ARTIFACT SOURCE        # camera:0, a video, a folder, drive.mcap:/camera/image_raw
"""

import sys

import numpy as np

from emadeploy import load
from emadeploy.contract.geometry import Intrinsics, back_project

HALF_WIDTH = 0.3  # metres to each side of the camera that the robot needs
ABOVE, BELOW = 0.3, 0.5  # metres from the camera up to the robot's top, and down to the floor
ENOUGH = 20  # points: fewer are noise
STOP = 1.0  # metres
FIELD_OF_VIEW = 60.0  # degrees; better, the intrinsics of your camera: Intrinsics(fx, fy, cx, cy, height, width)


def look_ahead(depth, labels, floor, camera):
    """Return metres to the nearest obstacle in the robot's way, and to the end of the free floor before it."""
    x, y, z = np.moveaxis(back_project(depth, camera), 2, 0)
    in_the_way = (np.abs(x) < HALF_WIDTH) & (y > -ABOVE) & (y < 2 * BELOW)  # where there is no depth, x is NaN: False
    obstacles, free = np.sort(z[in_the_way & (labels != floor)]), z[in_the_way & (labels == floor)]
    distance = float(obstacles[ENOUGH]) if len(obstacles) > ENOUGH else np.inf
    return distance, float(free[free < distance].max(initial=0.0))


def main(artifact, source):
    with load(artifact) as perception:
        floor = perception.spec.task("semseg").class_names.index("floor")
        for result in perception.stream(source, on_error="skip"):
            camera = Intrinsics.from_fov(result.depth.shape, FIELD_OF_VIEW)
            distance, free = look_ahead(result.depth, result.semseg, floor, camera)
            command = "go" if min(distance, free) > STOP else "stop"  # what is not seen is not free
            print(f"{result.stamp:.3f} s: obstacle at {distance:.2f} m, floor free up to {free:.2f} m: {command}")


if __name__ == "__main__":
    main(*sys.argv[1:])
