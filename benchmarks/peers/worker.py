"""Runs in a peer's own environment: reconstruct what arrives on standard input, one line a job.

    .venv-peer-NAME/bin/python -I benchmarks/peers/worker.py NAME

First it writes one line: the version and the candidates of the adapter ``NAME.py`` beside it. A job
is a line of JSON: ``given``, a file with amplitudes (scan, n, n), positions_px (scan, 2), probe
(n, n) and object_shape, or for what denoises with object_ (y, x), noise and object_shape;
``settings``, one of the candidates; ``found``, where the object goes. The
answer is a line with ``cpu_s``, the processor time of the reconstruction alone, or ``error``.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


def adapter_of(name: str) -> ModuleType:
    """Return the module of a peer beside this file, whose name may also be its package's."""
    spec = importlib.util.spec_from_file_location(
        f"peer_{name}", Path(__file__).parent / f"{name}.py"
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"no adapter {name}.py in {Path(__file__).parent}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def carry_out(adapter: ModuleType, job: dict[str, Any]) -> float:
    """Reconstruct one job; return the processor seconds."""
    with np.load(job["given"]) as archive:
        given = dict(archive)
    shape = tuple(int(side) for side in given.pop("object_shape"))
    np.random.seed(1)  # the peers draw from the global generator
    start_s = time.process_time()
    object_ = adapter.reconstruct(**given, object_shape=shape, **job["settings"])
    cpu_s = time.process_time() - start_s
    if object_.shape != shape:
        raise ValueError(f"the object is {object_.shape}, and {shape} was asked for")
    if not np.isfinite(object_).all():
        raise ValueError("the object is not finite")
    np.save(job["found"], object_.astype(np.complex64))
    return cpu_s


def main(name: str) -> None:
    """Answer until the input ends; what a peer prints goes to standard error."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        adapter = adapter_of(name)
        version = importlib.metadata.version(adapter.PACKAGE)
        print(json.dumps({"version": version, "candidates": adapter.CANDIDATES}), file=answers)
        answers.flush()
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"cpu_s": carry_out(adapter, json.loads(line))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers)
            answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
