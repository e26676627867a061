"""TensorRT 8.6, 10, 11 and TensorRT for RTX behind one adapter: what differs between them is here, and in `weak`.

What a version can do is asked of its module ("has it this flag?"), not concluded from its number. The same in all of
them, and so called directly: ``set_tensor_address`` and ``execute_async_v3`` of an execution context.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from emadeploy.contract.errors import BackendMissing, BuildError, DeviceError
from emadeploy.runtime.machine import jetson_model
from emadeploy.runtime.trt.callbacks import Monitor, make_logger, make_monitor
from emadeploy.runtime.trt.values import BuildSettings, IoTensor, Parsed
from emadeploy.runtime.trt.weak import keep_types

#: Engine -> what people call it.
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
OLDEST = (8, 6)
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class Library:
    """One of the two libraries, at the version that is installed.

    ``name`` is the engine's ('tensorrt', 'tensorrt_rtx'), ``module`` the imported package, ``version`` its numbers and
    ``version_text`` as it writes them. ``logger`` is given to everything that TensorRT makes; its ``errors`` are the
    last ones that TensorRT reported, as text.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.title = TITLES[name]
        self.module = module
        self.version_text: str = str(module.__version__)
        self.version = tuple(int(part) for part in re.findall(r"\d+", self.version_text)[:4])
        if name == "tensorrt" and self.version[:2] < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise BackendMissing(
                f"engine 'tensorrt' needs TensorRT {wanted} or newer; {self.version_text} is installed: take a newer "
                "JetPack (6.0 and later have it), or pip install 'emadeploy[tensorrt]'"
            )
        self.logger: Any = make_logger(module)

    # What this version can do

    @property
    def strongly_typed(self) -> bool:
        """Whether the graph alone decides on precisions; before TensorRT 10, the builder does within its flags."""
        return "STRONGLY_TYPED" in self.module.NetworkDefinitionCreationFlag.__members__

    @property
    def reports_progress(self) -> bool:
        """Whether a build tells how far it is."""
        return hasattr(self.module, "IProgressMonitor")

    @property
    def keeps_timings(self) -> bool:
        """Whether a build leaves timings for the next one; in TensorRT for RTX, kernels are chosen when they run."""
        return self.name == "tensorrt"

    @property
    def builds_ahead(self) -> bool:
        """Whether engines can be built for GPUs that are not here."""
        return hasattr(self.module, "ComputeCapability")

    # Building

    def parse(self, model: bytes, where: str) -> Parsed:
        """Return the network of the ONNX graph ``model``, whose file is ``where``.

        Raises BuildError that names the node and quotes the parser where TensorRT does not take it, and where an
        extent is not fixed; DeviceError where TensorRT cannot start, as without a driver.
        """
        self.logger.errors.clear()
        builder = self._made("builder", lambda: self.module.Builder(self.logger))
        flag = "STRONGLY_TYPED" if self.strongly_typed else "EXPLICIT_BATCH"
        flags = 1 << int(getattr(self.module.NetworkDefinitionCreationFlag, flag))
        network = self._made("network", lambda: builder.create_network(flags))
        parser = self.module.OnnxParser(network, self.logger)
        if not parser.parse(model, where):
            found = [parser.get_error(index) for index in range(parser.num_errors)]
            raise BuildError(f"{where}: {self.title} {self.version_text} does not take {self._complaint(found)}")
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if any(extent < 1 for extent in tensor.shape):
                raise BuildError(
                    f"{where}: input {tensor.name!r} has extents {tuple(tensor.shape)}; every one must be a positive "
                    "number: export again with a fixed --size"
                )
        return Parsed(builder, network, parser)

    def config(self, parsed: Parsed, settings: BuildSettings, timings: bytes = b"") -> Any:
        """Return the configuration of a build, with the ``timings`` that an earlier one left.

        Raises DeviceError where a DLA core or a compute capability is asked for, and this version has none for it.
        """
        module = self.module
        config = parsed.builder.create_builder_config()
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # else the inspector tells no precision
        for pool, limit in (("WORKSPACE", settings.workspace), ("TACTIC_DRAM", settings.tactics)):
            if limit is not None:
                config.set_memory_pool_limit(getattr(module.MemoryPoolType, pool), limit)
        if settings.optimization_level is not None:
            config.builder_optimization_level = settings.optimization_level
        if not self.strongly_typed:
            keep_types(module, parsed.network, config, settings.precision)
        if settings.dla is not None:
            self._use_dla(parsed.builder, config, settings.dla, settings.precision)
        if settings.compute_capabilities:
            self._build_ahead(config, settings.compute_capabilities)
        if self.keeps_timings:
            # Damaged timings, or those of another GPU, are none: TensorRT measures anew.
            for known in (timings, b""):
                found = config.create_timing_cache(known)
                if found is not None and config.set_timing_cache(found, False):
                    break
        return config

    def monitor(self, config: Any, report: Monitor) -> None:
        """Have the build with ``config`` call ``report``; a version without progress never does."""
        if self.reports_progress:
            config.progress_monitor = make_monitor(self.module, report)

    def build_serialized_network(self, parsed: Parsed, config: Any) -> bytes:
        """Return the compiled engine. Raises BuildError that quotes TensorRT where it fails."""
        self.logger.errors.clear()
        self.logger.layers = ""
        plan = parsed.builder.build_serialized_network(parsed.network, config)
        if plan is None:
            raise BuildError(f"{self.title} {self.version_text} cannot build the engine: {self.complaint()}")
        return bytes(memoryview(plan))

    def timings(self, config: Any) -> bytes:
        """Return the timings that the build with ``config`` took, for the next one; empty where there are none."""
        found = config.get_timing_cache() if self.keeps_timings else None
        return b"" if found is None else bytes(memoryview(found.serialize()))

    # Running

    def deserialize(self, plan: bytes, dla: int | None = None) -> Any:
        """Return the engine of a plan whose digest is checked: it is native code. ``dla`` is the core that it was built
        with, which a plan does not say. Raises DeviceError."""
        self.logger.errors.clear()
        # The engine keeps its runtime; kept for all, it would outlive the GPU's context.
        runtime = self._made("runtime", lambda: self.module.Runtime(self.logger))
        if dla is not None:
            runtime.DLA_core = dla
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceError(
                f"{self.title} {self.version_text} cannot load the engine: {self.complaint()}. Compile it again on "
                "this machine: emadeploy build ARTIFACT --force"
            )
        return engine

    def context(self, engine: Any) -> Any:
        """Return a new execution context, which takes the engine's activations on the GPU. Raises DeviceError."""
        return self._made("execution context", engine.create_execution_context)

    def tensors(self, engine: Any) -> tuple[IoTensor, ...]:
        """Return the inputs and outputs of an engine, in its order."""
        found = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = engine.get_tensor_dtype(name).name
            shape = tuple(int(extent) for extent in engine.get_tensor_shape(name))
            is_input = engine.get_tensor_mode(name).name == "INPUT"
            found.append(IoTensor(name, shape, _DTYPES.get(dtype, dtype.lower()), is_input))
        return tuple(found)

    def activation_bytes(self, engine: Any) -> int:
        """Return how much memory of the GPU each execution context takes."""
        # TensorRT 11 has the second name alone, 8.6 the first.
        name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
        return int(getattr(engine, name))

    def layers(self, engine: Any) -> list[Mapping[str, Any]]:
        """Return what the inspector tells of each layer of an engine: 'Name', 'LayerType', 'Inputs', 'Metadata'..."""
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(self.module.LayerInformationFormat.JSON)
        # Not strict: from 8.6 on it writes the control characters between the nodes of a fused layer as they are.
        found = json.loads(text, strict=False)["Layers"]
        # An engine that was built without detail lists names alone.
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in found]

    def complaint(self) -> str:
        """Return the last errors that TensorRT reported, in words."""
        return "; ".join(self.logger.errors) or "it does not say why"

    def _complaint(self, errors: list[Any]) -> str:
        if not errors:
            return f"the graph: {self.complaint()}"
        error = errors[0]
        # TensorRT 8.6 gives the number of the node alone; its log names it in words.
        name = error.node_name() if hasattr(error, "node_name") else ""
        operator = f" ({error.node_operator()})" if hasattr(error, "node_operator") else ""
        node = f"node {name!r}{operator}" if name else f"node number {error.node()}"
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"{node}: {_said(error)}{more}. Export again with this version of emadeploy, or for another target"

    def _made(self, what: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes. TensorRT answers None, or pybind11 raises, where it cannot."""
        try:
            made = make()
        except (TypeError, RuntimeError) as error:
            self.logger.errors.append(str(error))
            made = None
        if made is None:
            raise DeviceError(
                f"{self.title} {self.version_text} cannot make its {what}: {self.complaint()}. `emadeploy doctor` "
                "tells what this machine has"
            )
        return made

    def _use_dla(self, builder: Any, config: Any, core: int, precision: str) -> None:
        if core >= (cores := int(builder.num_DLA_cores)):
            why = f"finds {cores} here" if cores else "has none here: DLAs are on Orin and Xavier"
            raise DeviceError(
                f"DLA core {core}: {self.title} {self.version_text} {why} (8.6 to 10.7, and AGX Orin from 11.4.1); "
                "build without --dla"
            )
        # A DLA has no float32, and until TensorRT 11 no Q/DQ: all of it would fall back to the GPU, in silence.
        if precision == "fp32" or (precision == "int8" and self.version[0] < 11):
            raise DeviceError(
                f"DLA core {core}: {self.title} {self.version_text} has the DLA compute float16 alone, and this is "
                f"{precision}: export for trt-fp16, or build without --dla"
            )
        config.default_device_type = self.module.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self.module.BuilderFlag.GPU_FALLBACK)  # it has no resizing, no softmax over many pixels

    def _build_ahead(self, config: Any, wanted: tuple[str, ...]) -> None:
        if not self.builds_ahead:
            raise DeviceError(
                f"compute capability {', '.join(wanted)}: {self.title} builds for the GPU of this machine alone; ahead "
                "of time, TensorRT for RTX does (--target trt-rtx-...)"
            )
        known = self.module.ComputeCapability.__members__
        config.num_compute_capabilities = len(wanted)
        for index, capability in enumerate(wanted):
            member = f"SM{capability.replace('.', '')}"
            if member not in known:
                able = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known if name.startswith("SM"))
                raise DeviceError(
                    f"compute capability {capability}: {self.title} {self.version_text} builds for {able}"
                )
            config.set_compute_capability(known[member], index)


def _said(error: Any) -> str:
    """Return what the parser says of a node, in one line: some of its checks say no more than 'false'."""
    lines = [line for line in error.desc().splitlines() if "catchCudaError" not in line]  # there is no driver, either
    said = " ".join(" ".join(lines).split())
    return said if said not in ("", "false") else error.code().name.replace("_", " ").lower()


@cache
def load_library(engine: str) -> Library:
    """Return the library of ``engine``, 'tensorrt' or 'tensorrt_rtx', once per process: TensorRT takes one logger.

    Raises BackendMissing that says what to install, where it is not installed, broken or too old.
    """
    title = TITLES[engine]
    try:
        module = importlib.import_module(engine)
    except ModuleNotFoundError as error:
        if error.name != engine:
            raise BackendMissing(
                f"engine {engine!r}: {title} is installed without {error.name}: {_line(engine)}"
            ) from None
        raise BackendMissing(f"engine {engine!r} needs {title}, which is not installed: {_line(engine)}") from None
    except (ImportError, OSError, RuntimeError) as error:
        # The stub that PyPI has, another interpreter's wheel, a driver library that is missing.
        raise BackendMissing(f"engine {engine!r}: {title} is installed, but its import fails: {error}") from None
    return Library(engine, module)


def _line(engine: str) -> str:
    """Return what installs the library here."""
    if engine == "tensorrt" and jetson_model():
        return (
            "it comes with JetPack: sudo apt install python3-libnvinfer, and make the environment with "
            "python3 -m venv --system-site-packages"
        )
    return f"pip install 'emadeploy[{engine.replace('_', '-')}]'"
