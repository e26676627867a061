"""TensorRT's Python module as each version has it, made from the recorded surfaces, with ONNX Runtime for a GPU.

What a version lacks raises AttributeError, arguments that none of its overloads takes a TypeError, and what it only
reads cannot be set: so a call that a version lacks fails a test. An engine is the graph that it was built from.
Addresses are those of this process, which is the GPU.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

RECORDS = Path(__file__).parent / "reference" / "tensorrt_api"
VERSIONS = ("tensorrt-8.6", "tensorrt-10.3", "tensorrt-10.13", "tensorrt-11.4", "tensorrt_rtx-1.7")
#: onnx's type -> TensorRT's DataType, and what its inspector calls it.
_TYPES = {1: ("FLOAT", "FP32"), 10: ("HALF", "FP16"), 2: ("UINT8", "UInt8"), 3: ("INT8", "Int8"), 6: ("INT32", "Int32")}
_LAYER_TYPES = {
    "Conv": "CONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Relu": "ACTIVATION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Cast": "CAST",
}
_MAGIC = b"a fake plan: "
_TIMINGS = b"fake timings of "


def read_record(name: str) -> dict[str, Any]:
    """Return the recorded surface of a version, 'tensorrt-8.6'."""
    found: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def fake(name: str, **world: Any) -> Any:
    """Return a module that has what version ``name`` has, in a :class:`World` of these fields."""
    record = read_record(name)
    module = ModuleType(record["module"])
    surroundings = World(module, record, **world)
    module.__dict__.update(__version__=record["version"], world=surroundings)
    for cls, surface in record["classes"].items():
        setattr(module, cls, _class(cls, surface, surroundings))
    return module


class World:
    """What the fake stands in, and what was done to it.

    ``dla_cores``; ``refuses``: operators that the parser does not take; ``fails``: what a build reports in place of a
    plan; ``gpu``: whether there is one, without which engines are built and not loaded. ``configs``: of each build;
    ``told``: layer -> what it was told to compute in; ``says``: the parser of an operator that it refuses;
    ``loaded_on``: the DLA core of each engine that was loaded, -1 where none was named.
    ``enqueue``: takes work for a stream, with the memory that it touches (address -> bytes); by default done at once.
    """

    def __init__(
        self,
        module: ModuleType,
        record: Mapping[str, Any],
        *,
        dla_cores: int = 0,
        refuses: tuple[str, ...] = (),
        fails: str = "",
        gpu: bool = True,
    ) -> None:
        self.module, self.version = module, str(record["version"])
        self.dla_cores, self.refuses, self.fails, self.gpu = dla_cores, refuses, fails, gpu
        self.configs: list[Any] = []
        self.told: dict[str, list[str]] = {}
        self.loaded_on: list[int] = []
        self.says = "Unsupported operator {}"
        self.enqueue: Callable[[int, dict[int, int], Callable[[], None]], None] = lambda _stream, _memory, work: work()

    def made(self, cls: str, real: Any) -> Any:
        """Return ``real`` behind the surface that this version records for ``cls``."""
        thing = getattr(self.module, cls).__new__(getattr(self.module, cls))
        thing._real = real
        return thing

    def report(self, logger: Any, message: str) -> None:
        logger.log(logger.Severity.ERROR, message)


def _class(name: str, surface: Mapping[str, Any], world: World) -> Any:
    inner = {key: _class(key, value, world) for key, value in surface.get("classes", {}).items()}
    if "members" in surface:
        return IntEnum(name, {member: index for index, member in enumerate(surface["members"])})
    if name in ("ILogger", "IProgressMonitor", "IProfiler"):
        return type(name, (_Derived,), inner)  # for users to derive from: has what they give it
    return type(name, (_Surface,), {"_surface": surface, "_world": world, "_name": name, **inner})


class _Derived:
    """A base class of TensorRT's; it must be initialised by name, as pybind11 asks."""

    def __init__(self) -> None:
        self.initialised = True


class _Surface:
    """An object of TensorRT, seen through what its version records; behind it stands one of the classes below."""

    _surface: Mapping[str, Any]
    _world: World
    _name: str
    _real: Any

    def __init__(self, *values: Any, **named: Any) -> None:
        self._check("__init__", values, named)
        self._real = globals()[f"_{self._name}"](self._world, *values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._surface["methods"]:
            return self._method(name)
        if name in self._surface["properties"]:
            return getattr(self._real, name)
        raise AttributeError(f"TensorRT {self._world.version}: {self._name!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif self._surface["properties"].get(name):
            setattr(self._real, name, value)
        else:
            raise AttributeError(f"TensorRT {self._world.version}: {name!r} of {self._name!r} cannot be set")

    def _method(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            self._check(name, values, named)
            return getattr(self._real, name)(*values, **named)

        return call

    def _check(self, name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        overloads = self._surface["methods"][name]
        if not any(_takes(parameters, values, named) for parameters in overloads):
            raise TypeError(f"TensorRT {self._world.version}: {self._name}.{name}() takes {overloads}")


def _takes(parameters: list[str], values: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    names = [parameter.rstrip("?") for parameter in parameters]
    left = names[len(values) :]
    needed = {name for name in left if f"{name}?" not in parameters}
    return len(values) <= len(names) and set(named) <= set(left) and needed <= set(named)


class _Builder:
    def __init__(self, world: World, logger: Any) -> None:
        assert logger.initialised
        self.world, self.logger, self.num_DLA_cores = world, logger, world.dla_cores

    def create_network(self, flags: int = 0) -> Any:
        known = self.world.module.NetworkDefinitionCreationFlag.__members__  # type: ignore[attr-defined]
        names = [name for name, member in known.items() if flags >> int(member) & 1]
        if "EXPLICIT_BATCH" not in names and "STRONGLY_TYPED" not in known:
            self.world.report(self.logger, "ONNX networks need EXPLICIT_BATCH")
            return None
        return self.world.made("INetworkDefinition", _INetworkDefinition(self.world, names))

    def create_builder_config(self) -> Any:
        return self.world.made("IBuilderConfig", _IBuilderConfig(self.world))

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        settings = config._real
        self.world.configs.append(settings)
        if self.world.fails:
            self.world.report(self.logger, self.world.fails)
            return None
        model = network._real.model
        if settings.progress_monitor is not None:
            _tell(settings.progress_monitor, len(model.graph.node))
        text = "\n".join(map(_line, layers_of(model)))
        self.logger.log(self.logger.Severity.VERBOSE, f"Layers:\n{text}\n\nBindings:\n")
        detail = settings.profiling_verbosity.name == "DETAILED"
        return _MAGIC + json.dumps(detail).encode() + b"\n" + bytes(model.SerializeToString())


def _tell(monitor: Any, nodes: int) -> None:
    assert monitor.initialised
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing", "Building engine", nodes)
    for index in range(nodes):
        assert monitor.step_complete("Timing", index)
    monitor.phase_finish("Timing")
    assert monitor.step_complete("Building engine", 0)
    assert monitor.step_complete("Building engine", 1)
    monitor.phase_finish("Building engine")


class _INetworkDefinition:
    def __init__(self, world: World, flags: list[str]) -> None:
        self.world, self.creation = world, flags
        self.model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        value = self.model.graph.input[index]
        real = _ITensor()
        real.name, real.shape = value.name, tuple(_shape(value))
        return self.world.made("ITensor", real)

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    def get_layer(self, index: int) -> Any:
        return self.world.made("ILayer", _ILayer(self.world, self.model, self.model.graph.node[index]))


class _ITensor:
    name: str
    shape: tuple[int, ...]
    dtype: Any


class _ILayer:
    """A layer of a network; what it is told to compute in is kept in the world's ``told``."""

    def __init__(self, world: World, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        self.world, self.model, self.node = world, model, node
        self.name, self.num_inputs = node.name, len(node.input)
        self.type = world.module.LayerType[_LAYER_TYPES.get(node.op_type, "SHUFFLE")]  # type: ignore[attr-defined]

    def get_input(self, index: int) -> Any:
        return self._tensor(self.node.input[index])

    def get_output(self, index: int) -> Any:
        return self._tensor(self.node.output[index])

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.world.told.setdefault(self.name, []).append(dtype.name)

    @property
    def precision(self) -> Any:
        raise NotImplementedError

    @precision.setter
    def precision(self, dtype: Any) -> None:
        self.world.told.setdefault(self.name, []).append(dtype.name)

    def _tensor(self, name: str) -> Any:
        graph = self.model.graph
        typed = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
        real = _ITensor()
        real.name = name
        real.dtype = self.world.module.DataType[_TYPES[typed.get(name, 1)][0]]  # type: ignore[attr-defined]
        return self.world.made("ITensor", real)


class _IBuilderConfig:
    progress_monitor: Any = None
    DLA_core = -1
    num_compute_capabilities = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits: dict[str, int] = {}
        self.flags_set: list[str] = []
        self.capabilities: list[str] = []
        self.builder_optimization_level = 3
        self.profiling_verbosity = world.module.ProfilingVerbosity.LAYER_NAMES_ONLY  # type: ignore[attr-defined]
        self.default_device_type = world.module.DeviceType.GPU  # type: ignore[attr-defined]
        self.timings: Any = None

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.limits[pool.name] = pool_size

    def set_flag(self, flag: Any) -> None:
        self.flags_set.append(flag.name)

    def set_compute_capability(self, compute_capability: Any, index: int) -> None:
        assert index < self.num_compute_capabilities
        self.capabilities.append(compute_capability.name)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        if serialized_timing_cache and not serialized_timing_cache.startswith(_TIMINGS):
            return None
        version = (serialized_timing_cache or _TIMINGS + self.world.version.encode()).removeprefix(_TIMINGS)
        return self.world.made("ITimingCache", _ITimingCache(version, reused=bool(serialized_timing_cache)))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._real.version != self.world.version.encode():
            return False
        self.timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.timings


class _ITimingCache:
    def __init__(self, version: bytes, *, reused: bool) -> None:
        self.version, self.reused = version, reused

    def serialize(self) -> bytes:
        return _TIMINGS + self.version


class _OnnxParser:
    def __init__(self, world: World, network: Any, logger: Any) -> None:
        self.world, self.network, self.logger = world, network, logger
        self.errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        read = onnx.load_from_string(model)
        for index, node in enumerate(read.graph.node):
            if node.op_type in self.world.refuses:
                self.errors.append(self.world.made("ParserError", _ParserError(self.world, index, node)))
        self.network._real.model = read
        return not self.errors

    def get_error(self, index: int) -> Any:
        return self.errors[index]


class _ParserError:
    def __init__(self, world: World, index: int, node: onnx.NodeProto) -> None:
        self._world, self._index, self._node = world, index, node

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type

    def desc(self) -> str:
        return self._world.says.format(self._node.op_type)

    def code(self) -> Any:
        return self._world.module.ErrorCode.UNSUPPORTED_NODE  # type: ignore[attr-defined]


class _Runtime:
    DLA_core = -1

    def __init__(self, world: World, logger: Any) -> None:
        assert logger.initialised
        self.world, self.logger = world, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if not self.world.gpu or not serialized_engine.startswith(_MAGIC):
            self.world.report(self.logger, "Cuda Runtime" if not self.world.gpu else "a plan with another magic")
            return None
        self.world.loaded_on.append(self.DLA_core)
        detail, _, model = serialized_engine.removeprefix(_MAGIC).partition(b"\n")
        return self.world.made(
            "ICudaEngine", _ICudaEngine(self.world, onnx.load_from_string(model), json.loads(detail))
        )


class _ICudaEngine:
    device_memory_size = device_memory_size_v2 = 1 << 20

    def __init__(self, world: World, model: onnx.ModelProto, detail: bool) -> None:
        self.world, self.model, self.detail = world, model, detail
        self.values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        self.num_io_tensors = len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> Any:
        given = name in [value.name for value in self.model.graph.input]
        return getattr(self.world.module.TensorIOMode, "INPUT" if given else "OUTPUT")  # type: ignore[attr-defined]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(_shape(self.values[name]))

    def get_tensor_dtype(self, name: str) -> Any:
        theirs, _ = _TYPES[self.values[name].type.tensor_type.elem_type]
        return getattr(self.world.module.DataType, theirs)  # type: ignore[attr-defined]

    def create_engine_inspector(self) -> Any:
        return self.world.made("EngineInspector", _EngineInspector(self.model, self.detail))

    def create_execution_context(self, *_: Any) -> Any:
        return self.world.made("IExecutionContext", _IExecutionContext(self))


class _EngineInspector:
    def __init__(self, model: onnx.ModelProto, detail: bool) -> None:
        self.model, self.detail = model, detail

    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
        layers = layers_of(self.model)
        text = json.dumps({"Layers": layers if self.detail else [layer["Name"] for layer in layers], "Bindings": []})
        return text.replace("\\u001e", "\x1e")  # as it is: NVIDIA/TensorRT issue 2779


class _IExecutionContext:
    """Runs the graph on the host memory of its addresses; a profiler hears of each layer, the first the longest."""

    profiler: Any = None

    def __init__(self, engine: _ICudaEngine) -> None:
        import onnxruntime

        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.session = onnxruntime.InferenceSession(
            engine.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return name in self.engine.values

    def execute_async_v3(self, stream_handle: int) -> bool:
        if set(self.addresses) != set(self.engine.values):
            return False
        memory = {self.addresses[name]: self._bytes(value) for name, value in self.engine.values.items()}
        self.engine.world.enqueue(stream_handle, memory, self._run)
        return True

    def _run(self) -> None:
        given = {value.name: self._memory(value).copy() for value in self.engine.model.graph.input}
        answers = self.session.run([value.name for value in self.engine.model.graph.output], given)
        for value, answer in zip(self.engine.model.graph.output, answers, strict=True):
            self._memory(value)[...] = answer
        if self.profiler is not None:
            assert self.profiler.initialised, "pybind11 asks for IProfiler.__init__ by name"
            layers = layers_of(self.engine.model)
            for index, layer in enumerate(layers):
                self.profiler.report_layer_time(layer["Name"], float(len(layers) - index))

    def _bytes(self, value: Any) -> int:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        return int(np.prod(_shape(value))) * np.dtype(dtype).itemsize

    def _memory(self, value: Any) -> np.ndarray[Any, Any]:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        count = int(np.prod(_shape(value)))
        held = (ctypes.c_char * (count * dtype.itemsize)).from_address(self.addresses[value.name])
        return np.frombuffer(held, dtype).reshape(_shape(value))


def layers_of(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Return the layers of an engine of ``model`` as the inspector writes them: one per node, in what it computes."""
    made = {result: node.op_type for node in model.graph.node for result in node.output}
    typed = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    typed |= {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.value_info)}
    kinds = {"Conv": "CaskConvolution", "MatMul": "gemm"}
    layers = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        types = [
            "Int8" if made.get(name) == "DequantizeLinear" else _TYPES.get(typed.get(name, 1), ("", "Int64"))[1]
            for name in node.input
        ]
        inputs = [
            {"Name": name, "Format/Datatype": f"Row major linear {kind}"}
            for name, kind in zip(node.input, types, strict=True)
        ]
        layers.append(
            {
                "Name": node.name,
                "LayerType": kinds.get(node.op_type, "kgen"),
                "Inputs": inputs if node.op_type == "MatMul" else inputs[:1],
                "Constants": [] if node.op_type == "MatMul" else inputs[1:2],
                "Outputs": [{"Name": name, "Format/Datatype": "Row major linear FP32"} for name in node.output],
                "Metadata": f"[ONNX Layer: {node.name}]\x1e[ONNX Layer: {node.name}]",
            }
        )
    return layers


def _line(layer: Mapping[str, Any]) -> str:
    """Return a layer as the builder of TensorRT for RTX writes it into its log."""

    def tensors(part: str) -> str:
        return ", ".join(
            f"{{ Name: {tensor['Name']}, Dimensions: [1], Datatype: {tensor['Format/Datatype'].split()[-1]} }}"
            for tensor in layer[part]
        )

    parts = ", ".join(f"{part}: [ {tensors(part)}]" for part in ("Inputs", "Constants", "Outputs"))
    return (
        f"Name: {layer['Name']}, LayerType: {layer['LayerType']}, {parts}, StreamId: 0, Metadata: {layer['Metadata']}"
    )


def _shape(value: Any) -> list[int]:
    return [extent.dim_value or -1 for extent in value.type.tensor_type.shape.dim]
