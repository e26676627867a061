"""The errors of emadeploy. Each message says what was found, where, what was expected and what to do.

    EmadeployError
    ├── SpecError            a model.yml, a task or a flag that does not make sense
    ├── DataError            a data set or a frame on disk that cannot be used
    ├── ExportError          the graph could not be made, or does not compute what the checkpoint computes
    ├── CalibrationError     calibration data missing, unfit or too little; a budget that cannot hold
    ├── BuildError           the engine could not be built as asked
    ├── ArtifactError        an artifact or checkpoint that is incomplete, altered, foreign or of another version
    ├── BackendMissing       an optional package is not installed
    ├── DeviceError          the device that was asked for is not here
    └── FrameError           a frame of the wrong type or shape was given to the runtime

The command line prints the message in one line and exits with status 1. `first_line` is what a message says of an error
of another library.
"""


class EmadeployError(Exception):
    """Base of everything that emadeploy raises for its users."""


class SpecError(EmadeployError):
    """A specification (model.yml, task, flag value) that does not make sense."""


class DataError(EmadeployError):
    """A data set, a picture or a video that cannot be used."""


class ExportError(EmadeployError):
    """The graph could not be made, or it does not compute what the checkpoint computes."""


class CalibrationError(EmadeployError):
    """Calibration data that is missing, unfit or too little, or a budget that cannot hold."""


class BuildError(EmadeployError):
    """The engine could not be built as asked."""


class ArtifactError(EmadeployError):
    """An artifact or checkpoint that is incomplete, altered, foreign or of another version."""


class BackendMissing(EmadeployError):  # noqa: N818 - the name says what is the matter
    """An optional package is not installed; the message carries the line that installs it."""

    @classmethod
    def of(cls, who: str, module: str, extra: str) -> "BackendMissing":
        """Return the error for ``who`` ('engine onnxruntime') that needs ``module`` from the extra ``extra``."""
        return cls(f"{who} needs {module}, which is not installed: pip install 'emadeploy[{extra}]'")


class DeviceError(EmadeployError):
    """The device that was asked for is not here, or not usable."""


class FrameError(EmadeployError, ValueError):
    """A frame of the wrong type, shape or content was given to the runtime."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none: libraries append pages to theirs."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip() if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """Return the whole message in one line, so that a log or a script can take it."""
    return " ".join(str(error).split())
