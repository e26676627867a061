"""The maps of a frame as ROS messages, as REP-118 and vision_msgs have them, under the stamp and frame of the image.

| topic | type | |
|---|---|---|
| depth | sensor_msgs/Image 32FC1 | metres along the optical axis, NaN = no answer; only where the unit is metre |
| normals | sensor_msgs/Image 32FC3 | unit vectors in the optical frame |
| labels, human_parts | sensor_msgs/Image mono8 or mono16 | class, 255 or 65535 = unlabelled |
| label_info, human_parts_info | vision_msgs/LabelInfo | the names of the classes |
| edge, saliency | sensor_msgs/Image 32FC1 | probability |
| points | sensor_msgs/PointCloud2 | x, y, z in metres, rgb, label; needs depth in metres and intrinsics |
| camera_info | sensor_msgs/CameraInfo | that of the image, where it is known |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.geometry import Intrinsics, PointCloud, point_cloud, valid_depth
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Header
from emadeploy.robotics.ros.camera import camera_info_message
from emadeploy.robotics.ros.types import Types, header_message

IMAGE, CLOUD, LABEL_INFO, CAMERA_INFO = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/PointCloud2",
    "vision_msgs/msg/LabelInfo",
    "sensor_msgs/msg/CameraInfo",
)
#: Kind of task with classes -> the topics of its labels and of their names.
_LABELS = {"semseg": ("labels", "label_info"), "human_parts": ("human_parts", "human_parts_info")}
_FLOAT32, _UINT16 = 7, 4  # constants of sensor_msgs/PointField
#: One point: 'rgb' as a float's bits, 0xRRGGBB, is what PCL and RViz expect.
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "<u2"), ("", "<u2")])
_UNLABELLED = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def topics_of(tasks: Sequence[TaskSpec]) -> dict[str, str]:
    """Return topic -> type of everything that a model of ``tasks`` can give."""
    topics: dict[str, str] = {}
    for task in tasks:
        if task.kind in _LABELS:
            labels, info = _LABELS[task.kind]
            topics |= {labels: IMAGE, info: LABEL_INFO}
        elif task.kind != "depth":
            topics[task.kind] = IMAGE
        elif task.unit == "metre":
            topics |= {"depth": IMAGE, "points": CLOUD}
    return {**topics, "camera_info": CAMERA_INFO}


def map_messages(
    types: Types,
    tasks: Sequence[TaskSpec],
    outputs: TaskOutputs,
    header: Header,
    *,
    pixels: UInt8 | None = None,
    camera: CameraInfo | None = None,
    intrinsics: Intrinsics | None = None,
    wanted: frozenset[str] | None = None,
) -> Iterator[tuple[str, str, Any]]:
    """Yield (topic, type, message) of the frame's maps; of all that can be made, or of the topics ``wanted`` alone.

    ``pixels``: the frame itself, for the colours of the points; ``camera`` is passed through; without ``intrinsics``
    there are no points.
    """
    topics = set(topics_of(tasks))
    if wanted is not None:
        topics &= wanted
    for task in tasks:
        decoded = outputs.maps[task.name]
        if task.kind in _LABELS:
            labels, info = _LABELS[task.kind]
            if labels in topics:
                yield labels, IMAGE, image_message(types, decoded, header)
            if info in topics:
                yield info, LABEL_INFO, _label_info(types, task, _UNLABELLED[decoded.dtype], header)
        elif task.kind in topics:
            shown = np.where(valid_depth(decoded), decoded, np.float32(np.nan)) if task.kind == "depth" else decoded
            yield task.kind, IMAGE, image_message(types, shown, header)
    if "points" in topics and intrinsics is not None and outputs.depth is not None:
        cloud = point_cloud(outputs.depth, intrinsics, frame=pixels, labels=outputs.semseg)
        yield "points", CLOUD, cloud_message(types, cloud, header)
    if "camera_info" in topics and camera is not None:
        yield "camera_info", CAMERA_INFO, camera_info_message(types, camera, header)


def image_message(types: Types, array: npt.NDArray[Any], header: Header) -> Any:
    """Return an Image of a map: uint8 mono8, uint16 mono16, float32 (H, W) 32FC1 and (H, W, 3) 32FC3."""
    encodings = {("u1", 2): "mono8", ("u2", 2): "mono16", ("f4", 2): "32FC1", ("f4", 3): "32FC3"}
    height, width = array.shape[:2]
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return types.make(
        IMAGE,
        header=header_message(types, header),
        height=height,
        width=width,
        encoding=encodings[array.dtype.str[1:], array.ndim],
        is_bigendian=0,
        step=little.strides[0],
        data=types.octets(little),
    )


def cloud_message(types: Types, cloud: PointCloud, header: Header) -> Any:
    """Return a PointCloud2 of the points, in one row: x, y, z, and rgb and label where the cloud has them."""
    count = len(cloud.points)
    points = np.zeros(count, _POINT)
    for axis, name in enumerate("xyz"):
        points[name] = cloud.points[:, axis]
    fields = [("x", 0, _FLOAT32), ("y", 4, _FLOAT32), ("z", 8, _FLOAT32)]
    if cloud.colours is not None:
        red, green, blue = cloud.colours.astype(np.uint32).T
        points["rgb"] = red << 16 | green << 8 | blue
        fields.append(("rgb", 12, _FLOAT32))
    if cloud.labels is not None:
        unlabelled = cloud.labels == _UNLABELLED[cloud.labels.dtype]
        points["label"] = np.where(unlabelled, np.uint16(65535), cloud.labels)
        fields.append(("label", 16, _UINT16))
    make_field = "sensor_msgs/msg/PointField"
    return types.make(
        CLOUD,
        header=header_message(types, header),
        height=1,
        width=count,
        fields=[types.make(make_field, name=n, offset=o, datatype=kind, count=1) for n, o, kind in fields],
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * count,
        data=types.octets(points),
        is_dense=True,
    )


def _label_info(types: Types, task: TaskSpec, unlabelled: int, header: Header) -> Any:
    names = task.class_names or tuple(f"class {index}" for index in range(task.channels))
    named = {**dict(enumerate(names)), unlabelled: "UNLABELED"}
    classes = [types.make("vision_msgs/msg/VisionClass", class_id=i, class_name=name) for i, name in named.items()]
    # Every pixel has the class that scores most: there is no threshold.
    return types.make(LABEL_INFO, header=header_message(types, header), class_map=classes, threshold=0.0)
