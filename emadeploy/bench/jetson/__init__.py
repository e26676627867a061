"""What a Jetson tells of itself: what it is, its power mode and clocks; power, temperature and throttling as it works.

Everything is read from files of the system, or from `tegrastats`; nothing is set, and nothing needs to be installed.
"""

from __future__ import annotations

from emadeploy.bench.jetson.facts import Jetson, read_jetson
from emadeploy.bench.jetson.power import PowerRecord
from emadeploy.bench.jetson.watch import PowerWatch

__all__ = ["Jetson", "PowerRecord", "PowerWatch", "read_jetson"]
