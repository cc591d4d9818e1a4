"""The digest of results: equal for equal results, another one for a single flipped bit."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from study_lib.data.archive import read_npz
from study_lib.files import read_json, write_csv, write_json, write_npz
from study_lib.phases.reconstruct import result_of
from study_lib.runs.plan import plan_jobs
from study_lib.runs.run import Run, create_run

CONDITION = (1e4, "baseline", "test")
ROW = {
    "arm": "solver",
    "label": "solver",
    "phase_ssim": 0.9111377344535506,
    "registration": "ok",
    "cpu_s": 0.34,
}


@pytest.fixture
def run(tmp_path, tiny_design, tiny_run):
    """A finished run's records, with one result of each kind."""
    run = create_run(tmp_path / "a run", tiny_design)
    for job in plan_jobs(tiny_design):
        write_json(run.folder / job.done, {"status": "done", "wall_s": 1.5})
    shutil.copytree(tiny_run.root("dataset"), run.root("dataset"))
    folder = comparison(run)
    write_json(folder / "metrics.json", [ROW])
    write_csv(folder / "metrics.csv", [ROW])
    write_json(folder / "missing_arms.json", {"lsqml": "the file /somewhere/of/mine is missing"})
    write_json(
        reconstruction(run) / "denoiser.json",
        {
            "family": "total_variation",
            "strength": 0.5,
            "choice_cpu_s": 3.1,
            "tried": [{"family": "gaussian", "gain_nats": 2.0}],
        },
    )
    write_npz(
        reconstruction(run) / "reconstruction.npz",
        {"object": np.full((3, 4), 1 + 2j, np.complex64), "wall_s": np.arange(2.0)},
        {"stop": "converged", "reconstruction_cpu_s": 0.2, "versions": {"numpy": "2.4.6"}},
    )
    network(run).parent.mkdir(parents=True)
    state = {"first.weight": torch.arange(6.0).reshape(2, 3), "seen": torch.tensor(7)}
    torch.save({"state": state, "training_cpu_s": 9.0}, network(run))
    return run


def digest(study, run) -> str:
    found = study("digest", run.folder)
    assert found.code == 0, found.err
    return found.out.strip()


def flip_lowest_bit(array: np.ndarray) -> None:
    array.reshape(-1).view(np.uint8)[0] ^= 1


def change_npz(path, name) -> None:
    arrays, metadata = read_npz(path)
    flip_lowest_bit(arrays[name])
    write_npz(path, arrays, metadata)


def change_json(path, change) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def change_weight(path, name) -> None:
    content = torch.load(path, weights_only=True)
    flip_lowest_bit(content["state"][name].numpy().reshape(-1))
    torch.save(content, path)


def patterns(run):
    return run.condition(1e4, split="train").whole_file


def reconstruction(run):
    return result_of(run.condition(*CONDITION), "solver").parent


def comparison(run):
    return run.condition(*CONDITION).folder("compare")


def network(run):
    return run.condition(*CONDITION).folder("train") / "model.pt"


def better(rows):
    rows[0]["phase_ssim"] = float(np.nextafter(rows[0]["phase_ssim"], 1))


def worse_row(run):
    path = comparison(run) / "metrics.csv"
    path.write_text(path.read_text().replace("0.9111377344535506", "0.9111377344535505"))


CHANGES = {
    "a count": lambda run: change_npz(patterns(run), "diffraction"),
    "a position": lambda run: change_npz(patterns(run), "xcoords"),
    "the probe": lambda run: change_npz(patterns(run), "probeGuess"),
    "an object": lambda run: change_npz(reconstruction(run) / "reconstruction.npz", "object"),
    "a weight": lambda run: change_weight(network(run), "first.weight"),
    "a buffer": lambda run: change_weight(network(run), "seen"),
    "a score": lambda run: change_json(comparison(run) / "metrics.json", better),
    "a score in a table": worse_row,
    "a doubt": lambda run: change_json(
        comparison(run) / "metrics.json", lambda rows: rows[0].update(registration="at the limit")
    ),
    "a missing arm": lambda run: change_json(
        comparison(run) / "missing_arms.json", lambda arms: arms.update(pinn="never trained")
    ),
    "a choice": lambda run: change_json(
        reconstruction(run) / "denoiser.json", lambda choice: choice.update(family="gaussian")
    ),
    "a strength": lambda run: change_json(
        reconstruction(run) / "denoiser.json",
        lambda choice: choice.update(strength=float(np.nextafter(0.5, 1))),
    ),
    "the evidence of a choice": lambda run: change_json(
        reconstruction(run) / "denoiser.json",
        lambda choice: choice["tried"][0].update(gain_nats=float(np.nextafter(2.0, 1))),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_one_changed_bit_changes_the_digest(what, run, study):
    before = digest(study, run)

    CHANGES[what](run)

    assert digest(study, run) != before


def test_date_place_name_and_load_change_nothing(run, study, tmp_path):
    before = digest(study, run)

    elsewhere = Run(run.folder.rename(tmp_path / "2001-01-01_other"), run.design)
    folder = reconstruction(elsewhere)
    change_json(folder / "denoiser.json", lambda choice: choice.update(choice_cpu_s=99.0))
    arrays, metadata = read_npz(folder / "reconstruction.npz")
    arrays["wall_s"] += 1
    slower = metadata | {"reconstruction_cpu_s": 7.0, "versions": {"numpy": "3.0"}}
    write_npz(folder / "reconstruction.npz", arrays, slower)
    path = network(elsewhere)
    torch.save(torch.load(path, weights_only=True) | {"training_cpu_s": 1.0}, path)
    compared = comparison(elsewhere)
    change_json(compared / "metrics.json", lambda rows: rows[0].update(cpu_s=5.0, label="ours"))
    change_json(compared / "missing_arms.json", lambda arms: arms.update(lsqml="elsewhere too"))
    (elsewhere.root("compare") / "events.jsonl").write_text("{}\n")

    found = study("digest", elsewhere.folder)
    assert (found.code, found.out.strip()) == (0, before)


def test_a_run_that_lost_a_result_has_no_digest(run, study):
    """It would be taken for a run that found something else."""
    place = (comparison(run) / "metrics.json").relative_to(run.folder).as_posix()
    job = plan_jobs(run.design)[-1]
    made = {"sha256": {place: "0" * 64, "notebooks/gone.ipynb": "0" * 64}}
    write_json(run.folder / job.done, read_json(run.folder / job.done) | made)
    assert digest(study, run), "an executed notebook holds no result"

    (run.folder / place).unlink()

    found = study("digest", run.folder)
    assert (found.code, found.out) == (1, "")
    assert f"1 files that its jobs made are missing, {place} first" in found.err


def test_items_are_the_lines_that_the_digest_is_taken_of(run, study):
    *lines, value = study("digest", run.folder, "--items").out.splitlines()

    text = "".join(f"{line}\n" for line in lines)
    assert hashlib.sha256(text.encode()).hexdigest() == value == digest(study, run)
    place = "phase_g_comparison/dose_10000/baseline/test/metrics.json"
    assert f"{place} [solver].phase_ssim: {ROW['phase_ssim']!r}" in lines
    assert not [line for line in lines if "cpu_s" in line or "wall_s" in line]


def test_a_run_that_is_not_finished_has_no_digest(run, study):
    next(run.folder.glob("jobs/05_compare*/done.json")).unlink()

    found = study("digest", run.folder)

    assert found.code == 1
    assert "1 of" in found.err
    assert "study resume" in found.err


def test_a_file_that_is_no_network_is_named_and_not_run(run, study):
    path = network(run)
    path.write_bytes(b"no network")

    found = study("digest", run.folder)

    assert found.code == 2
    assert "model.pt" in found.err


def test_a_folder_without_a_run_is_a_wrong_input(tmp_path, study):
    assert study("digest", tmp_path).code == 2


def test_an_arm_that_was_renamed_leaves_the_digest_as_it_was(study, run):
    """Its key in rows, members and keys, and its label in differences, are those of today."""
    names = {"thinning-net": "pinn-thinned", "thinning network": "PtychoPINN thinned"}

    def written(key, label):
        folder = comparison(run)
        row = ROW | {"arm": key, "label": label}
        write_json(folder / "metrics.json", [ROW, row])
        write_csv(folder / "metrics.csv", [ROW, row])
        write_json(folder / "missing_arms.json", {key: "a reason"})
        array = np.ones((2, 3), np.float32)
        write_npz(folder / "aligned.npz", {key: array, f"{key}_phase_std_rad": array}, {})
        write_csv(run.root("summary") / "highlights.csv", [{"arm": label, "reference": "LSQML"}])
        return digest(study, run)

    today, former = (written(*pair) for pair in (names.keys(), names.values()))

    assert today == former
    assert written("another", "another") != today
