"""What a reader of a row must know of its artifact."""

from __future__ import annotations

from emadeploy.contract.manifest import TARGETS, Manifest


def notes_of(manifest: Manifest) -> tuple[str, ...]:
    """Return what the manifest of an artifact says that bears on its times or its accuracy, a line each."""
    notes = []
    if manifest.untrained:
        notes.append("random weights: its times alone mean something")
    if TARGETS[manifest.target][1] == "int8" and manifest.accuracy is None:
        frames = (manifest.calibration or {}).get("frames")
        count = f" on {frames['count']} frames" if isinstance(frames, dict) and "count" in frames else ""
        notes.append(f"calibrated{count} and not judged when it was exported: no budget was held")
    return tuple(notes)
