"""A stand-in for an installed ROS 2: messages by the real definitions, as strict as rclpy's, and a node on no network.

What it cannot show is said in docs/ros2.md.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from emadeploy.robotics.ros.types import RosbagsTypes

_RANGES = {"uint8": 8, "uint16": 16, "uint32": 32, "int32": 31}
_ARRAYS = {"uint8": "B", "float64": "d"}


class Ros:
    """What the fake has seen: nodes, and what was published by topic."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.published: dict[str, list[Any]] = {}
        self.subscriptions: dict[str, tuple[Any, Callable[[Any], None], Any]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.qos: dict[str, Any] = {}
        self.deaf: set[str] = set()
        self.running = False
        self.spin: Callable[[Any], None] = lambda node: None


def install(monkeypatch: pytest.MonkeyPatch) -> Ros:
    """Put the fake in the place of rclpy and of the packages of messages."""
    ros, types = Ros(), RosbagsTypes()
    for name in types.store.fielddefs:
        package, _, kind = name.split("/")
        for path in (package, f"{package}.msg"):
            if path not in sys.modules or not hasattr(sys.modules[path], "_fake"):
                monkeypatch.setitem(sys.modules, path, _module(path))
        setattr(sys.modules[f"{package}.msg"], kind, _message(types, name))

    class Node(_Node):
        _ros = ros

    class ExternalShutdownException(Exception):  # noqa: N818 - its name in rclpy
        pass

    def init(args: Any = None) -> None:
        ros.running = True

    def try_shutdown() -> None:
        ros.running = False

    rclpy = _module("rclpy", init=init, spin=lambda node: ros.spin(node), try_shutdown=try_shutdown)
    qos = {
        "HistoryPolicy": SimpleNamespace(KEEP_LAST="keep last"),
        "ReliabilityPolicy": SimpleNamespace(BEST_EFFORT="best effort", RELIABLE="reliable"),
        "QoSProfile": lambda **fields: SimpleNamespace(**fields),
    }
    for name, module in {
        "rclpy": rclpy,
        "rclpy.node": _module("rclpy.node", Node=Node),
        "rclpy.qos": _module("rclpy.qos", **qos),
        "rclpy.executors": _module("rclpy.executors", ExternalShutdownException=ExternalShutdownException),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return ros


class _Node:
    _ros: Ros

    def __init__(self, name: str, **options: Any) -> None:
        self.name, self.destroyed = name, False

    def declare_parameter(self, name: str, default: Any) -> Any:
        return SimpleNamespace(value=self._ros.parameters.get(name, default))

    def resolve_topic_name(self, topic: str) -> str:
        return topic if topic.startswith("/") else f"/{topic.replace('~', self.name)}"

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        topic = self.resolve_topic_name(topic)
        found = self._ros.published.setdefault(topic, [])
        self._ros.qos[topic] = qos

        def publish(message: Any) -> None:
            assert type(message) is kind
            found.append(message)

        return SimpleNamespace(publish=publish, get_subscription_count=lambda: int(topic not in self._ros.deaf))

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self._ros.subscriptions[self.resolve_topic_name(topic)] = kind, callback, qos

    def create_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._ros.timers.append((seconds, callback))

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=1_700_000_001_000_000_000))

    def get_logger(self) -> Any:
        return SimpleNamespace(info=lambda message: None)

    def destroy_node(self) -> None:
        self.destroyed = True


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents, _fake=True, __path__=[])
    return module


def _message(types: RosbagsTypes, name: str) -> type:
    """Return a class like those that rosidl generates: keywords, defaults, and every value checked."""
    _, definition = types.store.fielddefs[name]
    kinds = {field: (node.name, what) for field, (node, what) in definition}

    def init(self: Any, **fields: Any) -> None:
        assert fields.keys() <= kinds.keys(), f"{name} has no {fields.keys() - kinds.keys()}"
        for field, value in fields.items():
            _check(value, *kinds[field], where=f"{name}.{field}")
            setattr(self, field, value)

    return type(name.rpartition("/")[2], (), {"__init__": init, "_name": name})


def _check(value: Any, node: str, what: Any, where: str) -> None:
    if node == "NAME":
        assert getattr(value, "_name", None) == what, f"{where} is {type(value).__name__}, expected {what}"
    elif node in ("ARRAY", "SEQUENCE"):
        (inner, kind), length = what
        if inner.name == "BASE" and kind[0] in _ARRAYS:
            assert isinstance(value, array.array), f"{where} is {type(value).__name__}, which rclpy goes through slowly"
            assert value.typecode == _ARRAYS[kind[0]]
        assert node == "SEQUENCE" or len(value) == length, f"{where} has {len(value)} values, expected {length}"
        if inner.name == "NAME":
            for item in value:
                _check(item, inner.name, kind, where)
    else:
        _check_plain(value, what[0], where)


def _check_plain(value: Any, kind: str, where: str) -> None:
    expected = {"string": str, "byte": bytes, "bool": bool, "float32": float, "float64": float}.get(kind, int)
    assert type(value) is expected, f"{where} is {type(value).__name__}, expected {expected.__name__}"
    if kind in _RANGES:
        assert -(kind == "int32") * 2**31 <= value < 2 ** _RANGES[kind], f"{where}: {value} does not fit {kind}"
    if kind == "byte":
        assert len(value) == 1
