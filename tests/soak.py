"""Repeat a small study under random kills and compare every result with one left alone.

    OMP_NUM_THREADS=1 python tests/soak.py --rounds 20      # an hour on two cores

In each round the run is killed up to four times after random seconds: the command, its engine or
whichever of its processes, by SIGKILL or SIGTERM, or all of its group at once, as by Ctrl-C or
`timeout`; with two or with eight jobs at a time. Then it is resumed to its end. A process that
lives on, a job that had finished and runs again, a seal that does not hold, or one byte that
differs is a fault.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from killing import command, done_jobs, left_after, working_in
from tiny_runs import only_run

from study_lib.runs.digest import digest_of_run
from study_lib.runs.evidence import faults_of_run

MOST_KILLS = 4


def finished(process) -> str:
    """Wait for a command; return what it says if it fails."""
    _, errors = process.communicate(timeout=1200)
    return errors if process.returncode else ""


def disturbed(folder: Path, words: list[str], random: np.random.Generator) -> tuple[int, list[str]]:
    """Kill a run again and again, then finish it; return the number of kills, and faults."""
    faults: list[str] = []
    run_folder: Path | None = None
    before: dict[str, str] = {}
    cores = str(random.choice([2, 8]))
    kills = int(random.integers(1, MOST_KILLS + 1))
    for _ in range(kills):
        start = words if run_folder is None else ["resume", str(run_folder)]
        process = command(*start, "--cores", cores, cwd=folder)
        time.sleep(random.uniform(2, 15))
        if process.poll() is not None:
            break
        how = signal.SIGKILL if random.random() < 0.7 else signal.SIGTERM
        aim = random.choice(["command", "any", "group"], p=[0.4, 0.3, 0.3])
        with suppress(ProcessLookupError):  # it may have ended by itself just now
            if aim == "group":
                os.killpg(process.pid, random.choice([signal.SIGTERM, signal.SIGINT]))
            else:
                victims = [str(process.pid)] if aim == "command" else working_in(folder)
                os.kill(int(random.choice(victims)), how)
        if aim == "any":  # the command notices, tries again or reports; then it is ended too
            time.sleep(random.uniform(0, 3))
            process.kill()
        process.communicate()
        faults += [f"process {one} lives on" for one in left_after(folder)]
        found = list((folder / "reports").glob("*/design.json"))
        run_folder = found[0].parent if found else None
        if run_folder is not None:
            now = done_jobs(run_folder)
            faults += [f"{job} ran again" for job in before if before[job] != now.get(job)]
            before = now
    start = words if run_folder is None else ["resume", str(run_folder)]
    errors = finished(command(*start, "--cores", cores, cwd=folder))
    return kills, faults + ([errors] if errors else [])


def main() -> int:
    """Print a line for each round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="as for `study run`")
    given = parser.parse_args()
    words = ["run", "--preset", "smoke", *(part for one in given.set for part in ("--set", one))]
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / "left alone"
        alone.mkdir()
        began = time.monotonic()
        errors = finished(command(*words, cwd=alone))
        if errors:
            sys.exit(errors)
        run_folder = only_run(alone / "reports")
        expected, _ = digest_of_run(run_folder)
        print(f"left alone: {time.monotonic() - began:.0f} s, results {expected[:12]}", flush=True)
        for number in range(given.rounds):
            random = np.random.default_rng([given.seed, number])
            folder = Path(scratch) / f"round {number}"
            folder.mkdir()
            began = time.monotonic()
            kills, faults = disturbed(folder, words, random)
            run_folder = only_run(folder / "reports")
            faults += faults_of_run(run_folder)
            found, _ = digest_of_run(run_folder)
            if found != expected:
                faults.append(f"results {found[:12]}")
            bad += bool(faults)
            took = time.monotonic() - began
            verdict = "; ".join(faults) or "same results"
            print(f"round {number + 1}: {kills} kills, {took:.0f} s, {verdict}", flush=True)
    print(f"{given.rounds - bad} of {given.rounds} rounds ended as the one that was left alone")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
