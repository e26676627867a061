"""``sensor_msgs/CameraInfo`` from and to a plain record."""

from __future__ import annotations

from typing import Any

from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Header
from emadeploy.robotics.ros.types import Types, header_message


def read_camera_info(message: Any, *, rectified: bool = False) -> CameraInfo:
    """Return the record of a CameraInfo of ROS 2, or of ROS 1, which writes its matrices in capitals.

    ``rectified``: whether the images beside it are.
    """
    upper = hasattr(message, "K")
    d, k, r, p = (tuple(map(float, getattr(message, name.upper() if upper else name))) for name in "dkrp")
    roi = message.roi
    return CameraInfo(
        height=int(message.height),
        width=int(message.width),
        k=k,
        p=p,
        d=d,
        r=r,
        distortion_model=str(message.distortion_model),
        binning=(int(message.binning_x), int(message.binning_y)),
        roi=(int(roi.x_offset), int(roi.y_offset), int(roi.height), int(roi.width), bool(roi.do_rectify)),
        rectified=rectified,
    )


def camera_info_message(types: Types, info: CameraInfo, header: Header) -> Any:
    """Return the message of a record."""
    left, top, height, width, rectify = info.roi
    return types.make(
        "sensor_msgs/msg/CameraInfo",
        header=header_message(types, header),
        height=info.height,
        width=info.width,
        distortion_model=info.distortion_model,
        d=types.doubles(info.d),
        k=types.doubles(info.k),
        r=types.doubles(info.r),
        p=types.doubles(info.p),
        binning_x=info.binning[0],
        binning_y=info.binning[1],
        roi=types.make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=left,
            y_offset=top,
            height=height,
            width=width,
            do_rectify=rectify,
        ),
    )
