"""ONNX Runtime: any ONNX graph on any CPU, int8 through Q/DQ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from emadeploy.contract.errors import ArtifactError, DeviceError, first_line
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.session import Array, Signature, check_signature, check_types

#: Device -> execution provider of ONNX Runtime.
_PROVIDERS = {"cpu": "CPUExecutionProvider"}
#: ONNX Runtime's names of tensor types -> numpy's.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(int64)": "int64",
}


class OnnxRuntimeSession:
    """An ``InferenceSession`` on one execution provider."""

    def __init__(self, session: ort.InferenceSession, device: str, threads: int) -> None:
        self._session: ort.InferenceSession | None = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._device = device
        self._threads = threads

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs by name. Raises DeviceError where ONNX Runtime fails."""
        assert self._session is not None, "run after close"
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise DeviceError(f"onnxruntime {ort.__version__} failed while running: {first_line(error)}") from None
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def describe(self) -> dict[str, str | int]:
        """Return engine, version, device, provider and threads."""
        return {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "device": self._device,
            "provider": _PROVIDERS[self._device],
            "threads": self._threads,
        }


def open_session(directory: Path, manifest: Manifest, *, threads: int, device: str | None) -> OnnxRuntimeSession:
    """Load the graph of an artifact; see :class:`emadeploy.runtime.session.OpenSession`."""
    device = device or "cpu"
    return OnnxRuntimeSession(create(directory, manifest, session_options(threads), device), device, threads)


def create(directory: Path, manifest: Manifest, options: ort.SessionOptions, device: str) -> ort.InferenceSession:
    """Return ONNX Runtime's own session of an artifact, checked; raises as :func:`open_session` does."""
    provider = _PROVIDERS.get(device)
    present = ort.get_available_providers()
    if provider is None or provider not in present:
        raise DeviceError(
            f"device {device!r}: engine 'onnxruntime' runs on {', '.join(_PROVIDERS)} in this version; "
            f"onnxruntime {ort.__version__} as installed has {', '.join(present)}"
        )
    check_types(manifest)
    path = directory / manifest.engine_file
    try:
        if TARGETS[manifest.target][1] != "int8":
            # A graph with Q/DQ for another engine is rounded as it says, and multiplied in float, as was asked for.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        raise ArtifactError(f"{path}: onnxruntime {ort.__version__} cannot load it: {first_line(error)}") from None
    # ONNX Runtime falls back to another provider with nothing but a log line.
    if session.get_providers()[0] != provider:
        raise DeviceError(f"{path}: asked for {provider}, onnxruntime took {session.get_providers()[0]}")
    check_signature(str(path), manifest, map(_signature, session.get_inputs()), map(_signature, session.get_outputs()))
    return session


def session_options(threads: int) -> ort.SessionOptions:
    """Return the options that every session has."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about the host's graphics cards are not for a robot's log
    # Measured on emanet-rooms as exported (288 x 384, fp32, one thread): peak memory 437 MB with the pattern planner,
    # whose block comes on top of what the first run took from the arena; 273 MB without, at the same speed; 304 MB and
    # 8 % slower without the arena.
    options.enable_mem_pattern = False
    # Worker threads spin within a run, which is what makes it fast, and not after it: 35 ms of a core per frame that
    # the decode, the next frame and the battery can use.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _signature(tensor: Any) -> Signature:
    # A dynamic extent is a str or None: it stays visible in the message of check_signature.
    return tensor.name, tuple(tensor.shape), _DTYPES.get(tensor.type, tensor.type)
