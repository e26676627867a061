"""Floor 2: run an artifact on a device. numpy and the artifact's own engine; torch is never imported.

>>> from emadeploy import load                                            # doctest: +SKIP
>>> perception = load("emanet-rooms.onnxruntime-int8")                    # doctest: +SKIP
>>> result = perception(frame)                                            # doctest: +SKIP
>>> result.depth, result.normals, result.semseg, result.timings           # doctest: +SKIP
"""

from emadeploy.runtime.runtime import Runtime, load

__all__ = ["Runtime", "load"]
