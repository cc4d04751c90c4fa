"""Trains in child processes and kills them at random moments; a program of its own, so that forking is safe.

python _killer.py OUT SEED KILLS OPTION...: once without interruption in OUT/whole, then in OUT/parts with up to KILLS
kills. Prints how many kills met a running child.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from fcnkern.cli import main


def start(words: list[str]) -> int:
    """A child that runs the command; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = main(words)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def ended(child: int) -> bool:
    """Whether the child has run to its end; raises RuntimeError where that was an error."""
    found, status = os.waitpid(child, os.WNOHANG)
    if found and os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise RuntimeError(f"exit code {os.waitstatus_to_exitcode(status)}")
    return found != 0


def run(out: Path, seed: int, kills: int, options: list[str]) -> int:
    """Both runs; the number of kills that met a running child."""
    began = time.monotonic()
    child = start(["train", *options, f"--out={out / 'whole'}"])
    while not ended(child):
        time.sleep(0.005)
    whole, rng, met = time.monotonic() - began, random.Random(seed), 0
    parts = out / "parts"
    for attempt in range(1000):
        begun = (parts / "config.toml").exists()
        child = start(
            ["train", "--quiet", "--resume", str(parts)] if begun else ["train", *options, f"--out={parts}"]
        )
        due = time.monotonic() + (rng.uniform(0.0, 0.4) * whole if attempt < kills else 1e9)
        while not ended(child):
            if time.monotonic() >= due:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                met += 1
                break
            time.sleep(0.001)
        else:
            return met
    raise RuntimeError("the run did not end")


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
