"""Two processes that share every batch learn what one learns alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import config_of, measurement_of

from study_lib.networks.machine import ProcessGroup
from study_lib.networks.pinn.training import train

TRAINING = """
import json, os, sys
from pathlib import Path
import torch
from small_training import config_of, fingerprint, measurement_of
from study_lib.networks.pinn.training import train

measurement = measurement_of(gridsize=2, step_px=8.0)
config = config_of(measurement, epochs=6, batch_size=3)
folder = Path(sys.argv[1])
def progress(record, epochs):
    if len(sys.argv) > 2 and record.epoch == int(sys.argv[2]):
        os._exit(1)
trained = train(measurement, config, checkpoints=folder / "checkpoints", progress=progress)
content = {"history": trained.history.as_dict(), "weights": fingerprint(trained)}
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(content))
assert not torch.distributed.is_initialized()
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(TRAINING)
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"),
            *("--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
            *(script, folder, *arguments),
        ],
        env=os.environ | {"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one_and_take_up_what_was_interrupted(tmp_path):
    """Ten groups in batches of three: in the last one, the second process has nothing to do."""
    measurement = measurement_of(gridsize=2, step_px=8.0)
    alone = train(measurement, config_of(measurement, epochs=6, batch_size=3)).history

    interrupted = torchrun(tmp_path, "3")
    resumed = torchrun(tmp_path)

    assert interrupted.returncode != 0
    assert resumed.returncode == 0, resumed.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    for name in ("train", "validation", "gradient_norm"):
        curve = [getattr(record, name) for record in alone.records]
        np.testing.assert_allclose(first["history"][name], curve, rtol=2e-3)
        assert first["history"][name] == second["history"][name]
    (tmp_path / "whole").mkdir()
    assert torchrun(tmp_path / "whole").returncode == 0
    whole = json.loads((tmp_path / "whole" / "rank0.json").read_text())
    assert whole["weights"] == first["weights"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_make_up_the_whole(count):
    rows = torch.arange(10)

    shares = [ProcessGroup(number, count).share(rows) for number in range(count)]

    assert sorted(torch.cat(shares).tolist()) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_there_is_nobody_to_ask():
    alone = ProcessGroup()

    assert alone.leads
    assert alone.made_by_leader(lambda: 5) == 5
    assert torch.equal(alone.sum(torch.ones(2)), torch.ones(2))
    assert alone.any(True, torch.device("cpu"))
    assert not alone.any(False, torch.device("cpu"))
