"""Give every reader many spoilt files: no crash, no hang, no memory without bound.

    python tests/fuzzing/campaign.py                         # 100,000 files, 15 minutes
    python tests/fuzzing/campaign.py --count 200 --seed 7    # of each target, other faults
    python tests/fuzzing/campaign.py --target yaml --keep faults

A reader may refuse a file with an error of the study or read what is left of it. Anything else,
more than two seconds of the processor, or 300 MiB for one file, is a fault; its file is kept.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from fuzzing.targets import NAMES  # noqa: E402  # found beside this file, however it is started

TARGETS = tuple(name for group in NAMES.values() for name in group)
SILENCE_S = 60.0  # without a word, a process has died or stands still in a library


@dataclass
class Found:
    """What the spoilt files of one target have shown."""

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    grown_mib: float = 0.0
    faults: list[str] = field(default_factory=list)


def campaign(name: str, count: int, seed: int, keep: Path) -> Found:
    """Spoil and read many files of one target, in processes that are replaced if they die."""
    found = Found()
    done = 0
    while done < count:
        reached = _one_process(name, count - done, seed, done, keep, found)
        done = reached + 1
    found.read = count
    return found


def _one_process(name: str, count: int, seed: int, first: int, keep: Path, found: Found) -> int:
    """Return the index of the last file that a process has read."""
    keep.mkdir(parents=True, exist_ok=True)
    words = [name, str(keep), str(seed), str(first), str(count)]
    places = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzzing.worker", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=keep,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
    )
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []

    def listen() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True).start()
    at = first - 1
    while True:
        try:
            line = lines.get(timeout=SILENCE_S)
        except queue.Empty:
            process.kill()
            if at < first:
                raise RuntimeError(f"{name}: no file was read") from None
            found.faults.append(f"{name} file {at}: stood still for {SILENCE_S:g} s")
            return at
        if line is None:
            code = process.wait()
            if at < first:
                raise RuntimeError("".join(errors))
            text = "".join(errors[-8:])
            found.faults.append(f"{name} file {at}: the process ended with {code}\n{text}")
            return at
        message = json.loads(line)
        at = message.get("at", at)
        if "fault" in message:
            found.faults.append(
                f"{name} file {message['index']} ({message['file']}):\n{message['fault']}"
            )
        if "end" in message:
            end = message["end"]
            found.refused += end["refused"]
            found.slowest_s = max(found.slowest_s, end["slowest_s"])
            found.grown_mib = max(found.grown_mib, end["grown_mib"])
            process.wait()
            return first + count - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, and every fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=-(-100_000 // len(TARGETS)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--keep", type=Path, help="folder for files that show a fault")
    given = parser.parse_args(arguments)
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        keep = (given.keep or Path(scratch)).resolve()
        print(f"{'target':20s}{'files':>8s}{'refused':>9s}{'slowest':>10s}{'memory':>10s}  faults")
        for name in given.target or TARGETS:
            found = campaign(name, given.count, given.seed, keep)
            faults += len(found.faults)
            print(
                f"{name:20s}{found.read:8d}{found.refused:9d}{found.slowest_s:8.2f} s"
                f"{found.grown_mib:6.0f} MiB  {len(found.faults)}",
                flush=True,
            )
            for fault in found.faults[:20]:
                print(fault, flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
