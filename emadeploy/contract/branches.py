"""The branches of a network, told from the names of nodes and layers: what audits, profiles and estimates group by.

Nodes are named by the path of their layer in the network: ``heads.depth.0.conv1/Conv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# First match wins. `{}` stands for the task, the last group of the pattern.
_BRANCHES = (
    (r"frame", "frame"),
    (r"backbone", "backbone"),
    (r"backbones\.(\w+)", "backbone.{}"),
    (r"initial_task_prediction_heads\.layers\.(\w+)", "initial.{}"),
    (r"scale_\d\.refinement\.(\w+)", "initial.{}"),
    (r"fpm_scale_\d|scale_fusion", "propagation"),
    (r"affinity_learning_module|ctal", "ctal"),
    (r"heads\.(\w+)", "heads.{}"),
    (r"(?:outputs|decode)\.(\w+)", "heads.{}"),
)
OTHER = "other"


def branch_of(node: str) -> str:
    """Return the branch of the network that a node of this name belongs to, such as 'ctal' or 'heads.depth'."""
    for pattern, branch in _BRANCHES:
        if match := re.match(rf"(?:{pattern})(?![^./])", node):
            return branch.format(*match.groups())
    return OTHER


def layer_branch(nodes: Sequence[str], *, compute: bool, outputs: Mapping[str, str] | None = None) -> str:
    """Return the branch of a layer that computes ``nodes``, in their order; 'other' where none has a known name.

    A convolution has its own node first and what was fused behind it after that; any other layer is part of the branch
    that it ends in. ``outputs`` names the branch of nodes that bear the name of an output instead of their own.
    """
    branches = [(outputs or {}).get(node) or branch_of(node) for node in nodes]
    known = [branch for branch in branches if branch != OTHER]
    return known[0 if compute else -1] if known else OTHER
