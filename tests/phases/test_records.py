"""Every job leaves a true record: what it read, wrote, cost, and how it ended."""

import hashlib
import json
import sys
import time

import numpy as np
import pytest
import torch

from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.phases import records
from study_lib.phases.records import Work, peak_memory_mib, provenance, recorded


def job_in(folder, **values) -> Work:
    return Work(
        manifest=folder / "phase" / "manifest.json",
        key="dose_1000/dense",
        folder=folder / "phase" / "dose_1000",
        parameters={"dose": 1e3},
        seeds={"simulation": 42},
        **values,
    )


def record_in(folder) -> dict:
    return read_json(folder / "phase" / "manifest.json")["jobs"]["dose_1000/dense"]


def events_of(job: Work) -> list[dict]:
    lines = (job.folder / "events.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


def test_a_job_that_ends_well_is_done_with_the_hashes_of_its_files(tmp_path):
    source = tmp_path / "other" / "input.npz"
    source.parent.mkdir()
    source.write_bytes(b"in")
    job = job_in(tmp_path, inputs=[source])

    with recorded(job):
        output = job.manifest.parent / "out.npz"
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(b"out")
        job.outputs.append(output)
        job.results["score"] = 0.5

    record = record_in(tmp_path)
    assert (record["status"], record["error"]) == ("done", None)
    assert record["inputs"] == {"../other/input.npz": hashlib.sha256(b"in").hexdigest()}
    assert record["outputs"] == {"out.npz": hashlib.sha256(b"out").hexdigest()}
    assert record["parameters"] == {"dose": 1000.0}
    assert record["seeds"] == {"simulation": 42}
    assert record["results"] == {"score": 0.5}


def test_an_input_is_vouched_for_as_it_was_before_the_work(tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    job = job_in(tmp_path, inputs=[first])
    first.write_bytes(b"read")

    with recorded(job):
        first.write_bytes(b"written meanwhile")
        second.write_bytes(b"read later")
        job.add_inputs([first, second])
        second.write_bytes(b"written meanwhile")

    before = {"first.npz": b"read", "second.npz": b"read later"}
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in before.items()}
    assert record_in(tmp_path)["inputs"] == {f"../{name}": expected[name] for name in expected}
    assert job.sha256_of_input(first) == expected["first.npz"]
    with pytest.raises(InputError, match=r"third\.npz: no such file; run the phase"):
        job.sha256_of_input(tmp_path / "third.npz")


def test_a_job_that_fails_is_recorded_and_the_error_goes_on(tmp_path):
    with pytest.raises(ZeroDivisionError), recorded(job_in(tmp_path)):
        _ = 1 / 0

    record = record_in(tmp_path)
    assert record["status"] == "failed"
    assert record["error"] == "ZeroDivisionError: division by zero"


def test_a_job_that_is_interrupted_is_not_done(tmp_path):
    with pytest.raises(KeyboardInterrupt), recorded(job_in(tmp_path)):
        raise KeyboardInterrupt

    assert record_in(tmp_path)["status"] == "failed"


def test_a_failed_job_vouches_for_no_output(tmp_path):
    output = tmp_path / "half.npz"
    output.write_bytes(b"half")
    with pytest.raises(OSError, match="disk"), recorded(job_in(tmp_path, outputs=[output])):
        raise OSError("disk")

    assert record_in(tmp_path)["outputs"] == {}


def test_a_second_try_replaces_the_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), recorded(job_in(tmp_path)):
        _ = 1 / 0
    with recorded(job_in(tmp_path)):
        pass  # a job without work still leaves a record

    assert (record_in(tmp_path)["status"], record_in(tmp_path)["error"]) == ("done", None)


def test_the_manifest_is_ascii_even_if_the_error_is_not(tmp_path):
    with pytest.raises(ValueError, match="µm"), recorded(job_in(tmp_path)):
        raise ValueError("3 µm")

    assert (tmp_path / "phase" / "manifest.json").read_bytes().isascii()
    assert record_in(tmp_path)["error"] == "ValueError: 3 µm"


def test_wall_and_processor_time_are_those_of_the_block(tmp_path):
    with recorded(job_in(tmp_path)):
        start = time.process_time()
        while time.process_time() - start < 0.05:
            pass  # processor time is what is spent

    record = record_in(tmp_path)
    assert 0.05 <= record["cpu_s"] < 5
    assert record["wall_s"] > 0.04


def test_peak_memory_is_in_mebibytes():
    before = peak_memory_mib()
    block = np.ones(80 * 2**17)

    assert 20 < before < 1e5
    assert peak_memory_mib() >= block.nbytes / 2**20


def test_provenance_names_versions_commit_and_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setitem(sys.modules, "torch", None)

    origin = provenance()

    assert origin["versions"]["numpy"] == np.__version__
    assert origin["git"].keys() == {"commit", "dirty"}
    assert origin["machine"]["threads"] == "3"
    assert "device" not in origin["machine"], "only the work itself knows it"


def test_a_job_tells_the_device_and_the_threads_that_it_used(tmp_path):
    threads = torch.get_num_threads()
    with recorded(job_in(tmp_path)):
        pass  # a job without work still leaves a record
    machine = record_in(tmp_path)["machine"]
    assert (machine["device"], machine["threads"]) == (None, str(threads))

    with recorded(job_in(tmp_path)) as job:
        for device in ("cpu", "cuda:1", "cpu"):
            job.report_device(device)
        job.report_device("cpu", threads + 1)
    machine = record_in(tmp_path)["machine"]
    assert (machine["device"], machine["threads"]) == ("cpu, cuda:1", str(threads + 1))


def test_progress_is_written_at_most_once_a_second_and_at_the_end(tmp_path, monkeypatch):
    job, clock = job_in(tmp_path), iter(np.arange(100, 200, 0.25))
    monkeypatch.setattr(records.time, "monotonic", lambda: float(next(clock)))

    for step in range(1, 11):
        job.progress("train", step, 10, loss=1.0 / step)

    assert [event["step"] for event in events_of(job)] == [1, 5, 9, 10]
    assert events_of(job)[-1] | {"time": None} == {
        "time": None,
        "phase": "train",
        "step": 10,
        "total": 10,
        "loss": 0.1,
    }
