"""A PBS of one machine for tests: qsub, qstat, qdel and qselect that keep their jobs in a folder.

As in PBS, a job starts in the home folder and with nothing of the caller's environment but what
``-V`` hands on. It starts at once, so there is no queue.
"""

import argparse
import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = ("qsub", "qstat", "qdel", "qselect")
FOLDER = Path(os.environ.get("FAKE_PBS", "."))


def install(folder: Path) -> Path:
    """Write the commands into a folder and return it."""
    folder.mkdir()
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        script.chmod(0o755)
    return folder


def qsub(words: list[str]) -> None:
    parser = argparse.ArgumentParser("qsub")
    parser.add_argument("-V", dest="all", action="store_true")
    for letter in "Njo":
        parser.add_argument(f"-{letter}")
    parser.add_argument("-l", action="append")
    parser.add_argument("script")
    options = parser.parse_args(words)
    number = f"{len(list(FOLDER.glob('*.json'))) + 1}.here"
    kept = os.environ if options.all else {"PATH": os.environ["PATH"]}
    environment = {**kept, "HOME": str(FOLDER), "PBS_JOBID": number, "FAKE_PBS": str(FOLDER)}
    write(number, {"name": options.N, "asked": options.l, "state": "R", "exit": None})
    subprocess.Popen(
        [sys.executable, __file__, "watch", number, options.script],
        cwd=FOLDER,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(number)


def watch(words: list[str]) -> None:
    """Run a job and write down how it ended; what ends it is sent to its group of processes."""
    number, script = words
    with (FOLDER / f"{number}.out").open("w") as log:
        job = subprocess.Popen([script], stdout=log, stderr=log, start_new_session=True)
    write(number, read(number) | {"group": job.pid})
    write(number, read(number) | {"exit": job.wait(), "state": "F"})


def qstat(words: list[str]) -> None:
    number = words[-1]
    if not (FOLDER / f"{number}.json").exists():
        sys.exit(f"qstat: Unknown Job Id {number}")
    job = read(number)
    print(f"Job Id: {number}\n    Job_Name = {job['name']}\n    job_state = {job['state']}")
    if job["state"] == "F":
        print(f"    Exit_status = {job['exit']}")


def qdel(words: list[str]) -> None:
    for number in words:
        if "group" in read(number):
            os.killpg(read(number)["group"], signal.SIGTERM)


def qselect(words: list[str]) -> None:
    parser = argparse.ArgumentParser("qselect")
    for letter in "uNs":
        parser.add_argument(f"-{letter}")
    options = parser.parse_args(words)
    if options.u != getpass.getuser():
        return
    for path in sorted(FOLDER.glob("*.json")):
        job = json.loads(path.read_text())
        if job["name"] == options.N and job["state"] in options.s:
            print(path.name.removesuffix(".json"))


def read(number: str) -> dict:
    return json.loads((FOLDER / f"{number}.json").read_text())


def write(number: str, content: dict) -> None:
    partial = FOLDER / f".{number}"
    partial.write_text(json.dumps(content))
    partial.replace(FOLDER / f"{number}.json")


if __name__ == "__main__":
    {name: globals()[name] for name in (*COMMANDS, "watch")}[sys.argv[1]](sys.argv[2:])
