"""Processes that speak the protocol of `emadeploy.bench.child` without an engine; what they do is in their artifact's
name."""

import sys
from pathlib import Path

#: Calls take 8 ms and 10 ms, or twice that for 'slow'; the first after a pause of another engine takes ten times that.
SPEAKS = """
import json, os, signal, sys
name = os.path.basename(sys.argv[1])
slow = 2 if "slow" in name else 1
def say(**message): print(json.dumps(message), flush=True)
if "dies" in name: os.kill(os.getpid(), signal.SIGKILL)
if "exits" in name: sys.exit("a library is missing")
if "babbles" in name: print("Hello", flush=True)
if "lists" in name: print("[1]", flush=True)
if "refuses" in name: say(error="ArtifactError: altered"); sys.exit(1)
if "hangs" in name: import time; time.sleep(60)
say(ready={"engine": "none", "device": "cpu"}, baseline_memory_mb=20.0, load_s=0.5)
lines, calls = 0, 0
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    lines += 1
    if "vanishes" in name and lines > 4: say(error="DeviceError: the GPU is gone"); sys.exit(1)
    if "killed" in name and lines > 4: os.kill(os.getpid(), signal.SIGKILL)
    if word == "memory":
        copies = dict(copies_ms=dict(copy_in=0.5, copy_out=1.0)) if "copies" in name else {}
        say(peak_memory_mb=50.0, device_memory_mb=None, **copies)
    elif word == "stream":
        say(fps=200.0 / slow, frames=8)
    else:
        answers = []
        for index in range(int(number) - ("forgets" in name)):
            calls += 1
            cold = 10 if index == 0 and int(number) > 3 else 1
            drift = 1 + calls / 20 if "drifts" in name else 1
            ms = slow * cold * drift
            answers.append(dict(preprocess=1.0, inference=8.0 * ms, decode=1.0, total=10.0 * ms))
        say(calls=answers)
"""


def fake_engine(folder: Path) -> list[str]:
    """Write the program into ``folder``; return its argv, to which the artifact and the rest are added."""
    path = folder / "fake_engine_process.py"
    path.write_text(SPEAKS)
    return [sys.executable, str(path)]
