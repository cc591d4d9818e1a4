"""Read spoilt files one after the other, within bounds of time and memory.

    python -m fuzzing.worker TARGET KEEP SEED FIRST COUNT

Prints a line of JSON for each fault, and one at the end. Started by :mod:`fuzzing.campaign`, which
sees if this process dies or stands still.
"""

import json
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from fuzzing.mutations import checksum
from study_lib.errors import StudyError

LIMIT_S = 2.0  # of the processor: a busy machine is no fault; who waits, the campaign sees
LIMIT_MIB = 300.0
HARD_LIMIT_BYTES = 8 * 2**30  # of addresses; torch alone reserves some


class TooSlow(BaseException):
    """A file has taken longer than the limit."""


def stop(*_: object) -> None:
    raise TooSlow


def memory_mib() -> float:
    """Return the most that this process has had; ru_maxrss begins with what its parent has."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line for line in status.open() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    name, keep = sys.argv[1], Path(sys.argv[2])
    seed, first, count = map(int, sys.argv[3:])
    warnings.simplefilter("ignore")  # not what is looked for; the pipe would fill with them
    with tempfile.TemporaryDirectory() as scratch:
        work(name, keep, Path(scratch), seed, range(first, first + count))


def work(name: str, keep: Path, folder: Path, seed: int, indices: range) -> None:
    # As the command line does: jsonschema would compile a grammar of web addresses for seconds.
    sys.modules.setdefault("rfc3987_syntax", None)  # None: not to be imported
    from fuzzing.targets import target

    reader = target(name, folder)
    resource.setrlimit(resource.RLIMIT_AS, (HARD_LIMIT_BYTES, HARD_LIMIT_BYTES))
    signal.signal(signal.SIGPROF, stop)
    path = folder / reader.file
    for sound in reader.sound:  # what a reader imports when it is first needed is none of its time
        path.write_bytes(sound)
        reader.read(path)
    refused, slowest_s, start_mib = 0, 0.0, memory_mib()
    for index in indices:
        random = np.random.default_rng([seed, index])
        sound = reader.sound[random.integers(len(reader.sound))]
        content = reader.change(sound, random)
        print(json.dumps({"at": index}), flush=True)
        path.write_bytes(content)
        before_mib, began = memory_mib(), time.process_time()
        fault = ""
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            reader.read(path)
        except StudyError:
            refused += 1
        except TooSlow:
            fault = f"took more than {LIMIT_S:g} s\n{traceback.format_exc(limit=-4)}"
        except BaseException:  # whatever it is, it is not ours
            fault = traceback.format_exc(limit=-6)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest_s = max(slowest_s, time.process_time() - began)
        grown = memory_mib() - before_mib
        if grown > LIMIT_MIB:
            fault += f"took {grown:.0f} MiB more"
        if fault:
            kept = keep / f"{name}-{checksum(content)}"
            kept.write_bytes(content)
            print(json.dumps({"fault": fault, "index": index, "file": str(kept)}), flush=True)
    summary = {"refused": refused, "slowest_s": slowest_s, "grown_mib": memory_mib() - start_mib}
    print(json.dumps({"end": summary}), flush=True)


if __name__ == "__main__":
    main()
