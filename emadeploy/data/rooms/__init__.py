"""Made rooms: images of procedurally furnished rooms with exact depth, normals, labels and edges."""

from emadeploy.data.rooms.cache import write_rooms
from emadeploy.data.rooms.classes import CLASS_NAMES
from emadeploy.data.rooms.render import RoomFrame, render_room

__all__ = ["CLASS_NAMES", "RoomFrame", "render_room", "write_rooms"]
