"""Wrong calls: one clear message on standard error, the right exit code, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from study_lib.data.contract import save_dataset
from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.runs.run import create_run


@pytest.fixture
def base_npz(tmp_path_factory):
    """A small base file that holds the contract."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("base") / "base.npz"
    arrays = {
        "objectGuess": np.exp(1j * random.uniform(0, 1, (120, 60))).astype(np.complex64),
        "probeGuess": random.standard_normal((16, 16)).astype(np.complex64),
        "xcoords": random.uniform(10, 50, 80),
        "ycoords": random.uniform(10, 110, 80),
    }
    save_dataset(path, arrays, {}, base=True)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--preset", "latop"],
            "preset 'latop' not found; choose one of budget, fly64, laptop",
        ),
        (["run", "--set", "training.epoch=3"], "training.epoch: unknown name; known here: batch_"),
        (["run", "--set", "trainin.epochs=3"], "no table 'trainin' here; known: "),
        (["run", "--set", "doses=['1e4']"], "'1e4' is text; write the number without quotes"),
        (["run", "--set", "doses=[-5.0]"], "found -5.0; input should be greater than 0"),
        (["run", "--set", "neighbor_count=3"], "neighbor_count = 3 < 4 patterns per group"),
        (
            ["run", "--set", "scan.rows=2", "--set", "scan.columns=3"],
            "6 patterns; 8 are needed",
        ),
        (
            [
                *("run", "--set", "scan.step_px=0.5", "--set", "scan.rows=10"),
                *("--set", "views=[{name: a, gridsize: 1}]"),
            ],
            "pixels; scores need at least 11; enlarge the scan",
        ),
        (["run", "--set", "specimen.phase_range_rad=1.0e-9"], "there is nothing to compare"),
        (["run", "--set", "seeds.iterative=5000000000"], "less than 4294967296"),
        *(
            (
                [*command, "--preset", "smoke", "--set", "training.network=no-such-net"],
                "training.network: no-such-net: no such network; choose one of pinn, pinn-amp",
            )
            for command in (
                ["run"],
                ["plan"],
                ["design"],
                ["params", "write"],
                ["generate", "--output-root", "c"],
            )
        ),
        (["run", "--set", "training.epochs"], "write it as name=value"),
        (["run", "--base-npz", "absent.npz"], "absent.npz: no such file"),
        (["run", "--cores", "0"], "'--cores': Input should be greater than or equal to 1"),
        (["run", "--coresn", "2"], "No such option"),
        (["generat"], "No such command"),
        (["run", "--set", "scan.rows=2", "--set", "patch_size_px=100"], "patch_size_px = 100"),
        (["notebook", "07_none", "out.ipynb"], "notebook '07_none' not found; choose one of 00_"),
        (
            ["notebook", "01_dataset", "out.ipynb", "-p", "dos=1.0e+4", "-p", "run_folder=x"],
            "dos: unknown name; known here: dose, run_folder",
        ),
        (
            ["notebook", "01_dataset", "out.ipynb", "-p", "dose='1e4'", "-p", "run_folder=x"],
            "'1e4' is text; write the number without quotes",
        ),
        (["verify", "reports/none"], "reports/none: no such folder"),
        (["validate", "none.npz"], "none.npz: no such file"),
        (["import", "none.npz.bz2", "base.npz"], "none.npz.bz2"),
        (
            ["train", "--phase-c-root", "c", "--phase-d-root", "d", "--artifact-root", "e"],
            "design.json: no such file; run the phase that writes it first",
        ),
    ],
)
def test_a_wrong_call_says_why_and_writes_nothing(tmp_path, arguments, message, study):
    code, _, error = study(*arguments)

    assert code == 2
    assert message in error
    assert error.startswith("study: ")
    assert len(error.splitlines()) <= 3
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_data_of_another_design_are_not_relabelled(study):
    generated = ("generate", "--preset", "smoke", "--output-root", "c")
    assert study(*generated)[0] == 0

    reseeded = (*generated, "--set", "seeds.simulation=7")
    code, _, error = study(*reseeded)

    assert code == 2
    assert "c holds data of design" in error


def test_a_measurement_is_not_overwritten_by_its_base(tmp_path, study):
    data = tmp_path / "data.npz"
    data.write_bytes(b"measured")

    code, _, error = study("import", data, "data.npz")

    assert code == 2
    assert "give the base file another name" in error
    assert data.read_bytes() == b"measured"


@pytest.mark.parametrize("damage", ["truncated", "text", "pickled", "incomplete"])
def test_a_broken_base_file_is_refused(tmp_path, base_npz, damage, study):
    content = base_npz.read_bytes()
    if damage == "truncated":
        base_npz.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        base_npz.write_text("not an archive")
    elif damage == "pickled":
        np.savez(base_npz, probeGuess=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        np.savez(base_npz, probeGuess=np.ones((16, 16), np.complex64))

    code, _, error = study("run", "--base-npz", base_npz)

    assert code == 2
    assert "base.npz" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (["--dose", "5"], "dose 5 is not in the design; choose one of 10000"),
        (["--view", "densest"], "view 'densest' is not in the design; choose one of baseline"),
        (["--view", "baseline", "--gridsize", "2"], "no job matches view baseline with gridsize 2"),
    ],
)
def test_a_filter_that_matches_no_job_is_an_error(tmp_path, filters, message, study):
    generated = ["generate", "--preset", "smoke", "--output-root", "c"]
    assert study(*generated)[0] == 0
    roots = ["--phase-c-root", "c", "--phase-d-root", "d", "--artifact-root", "e"]

    code, _, error = study("train", *roots, *filters)

    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_job_that_fails_is_named_and_the_others_still_run(tmp_path, study):
    assert (
        study(
            *("generate", "--preset", "smoke", "--output-root", "c"),
            *("--set", "doses=[1000.0, 10000.0]"),
        )[0]
        == 0
    )
    (tmp_path / "c" / "dose_1000" / "patched_train.npz").write_bytes(b"broken")

    code, printed, error = study(
        *("overlap", "--view", "dense", "--phase-c-root", "c"),
        *("--output-root", "d", "--artifact-root", "d"),
    )

    assert code == 1, "a job failed, another was done"
    assert "dose=1000.0 view=dense: failed" in error
    assert "1 of 2 jobs failed" in error
    assert "dose=10000.0 view=dense: done" in printed
    assert (tmp_path / "d" / "dose_10000" / "dense" / "dense_test.npz").is_file()


def test_dry_runs_list_jobs_and_write_nothing(tmp_path, base_npz, study):
    dry = ["run", "--base-npz", base_npz, "--preset", "smoke", "--dry-run"]
    code, printed, _ = study(*dry)

    assert code == 0
    assert "24 jobs in reports/" in printed
    assert "03_train: 3 to do, because it has not been done" in printed
    assert list(tmp_path.iterdir()) == []


def test_validate_names_every_violation(tmp_path, study):
    path = tmp_path / "bad.npz"
    np.savez(path, diffraction=-np.ones((3, 8, 8)), probeGuess=np.ones((8, 8), np.complex64))

    code, _, error = study("validate", path)

    assert code == 2
    for key in ("diffraction: found float64", "objectGuess: found nothing", "xcoords", "ycoords"):
        assert key in error


@pytest.fixture
def patterns_npz(tmp_path):
    """A file that holds the contract but for two trifles: double precision, no metadata."""
    random = np.random.default_rng(3)
    path = tmp_path / "patterns.npz"
    point = np.zeros((8, 8), np.complex64)
    point[4, 4] = np.sqrt(5.0 * 64)  # five photons on every pixel of the detector
    np.savez(
        path,
        diffraction=np.sqrt(random.poisson(5.0, (6, 8, 8))),
        probeGuess=point,
        objectGuess=np.ones((30, 30), np.complex64),
        xcoords=random.uniform(5, 20, 6),
        ycoords=random.uniform(5, 20, 6),
    )
    return path


def test_validate_notes_what_loses_nothing(patterns_npz, study):
    code, out, error = study("validate", patterns_npz)

    assert code == 0
    assert "holds DATA-001" in out
    assert "note: diffraction: found float64" in error
    assert "note: _metadata: found nothing" in error


def test_validate_strict_takes_the_contract_to_the_letter(patterns_npz, study):
    code, _, error = study("validate", patterns_npz, "--strict")

    assert code == 2
    assert "diffraction: found float64; expected float32; convert it" in error


def test_validate_reports_as_json(patterns_npz, study):
    code, out, _ = study("validate", patterns_npz, "--json")

    report = json.loads(out)
    assert code == 0
    assert (report["ok"], report["usable"]) == (False, True)
    assert {entry["key"] for entry in report["violations"]} == {"diffraction", "_metadata"}


def test_validate_compares_two_splits(patterns_npz, study):
    arguments = ("validate", patterns_npz, "--other", patterns_npz)

    code, _, error = study(*arguments)

    assert code == 2
    assert "lit by both splits; expected no shared row; leave a guard band of 8 rows" in error


def test_help_starts_without_torch():
    code = (
        "import sys; sys.argv = ['study', '--help']\n"
        "from study_lib.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'papermill' not in sys.modules"
    )
    folder = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)


def test_no_command_is_one_line(study):
    code, _, error = study()

    assert code == 2
    assert error == "study: no command given; `study --help` lists them\n"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dose": "5.0"}, "dose 5 is not in the design; choose one of 10000"),
        ({"dose": "20000"}, "dose 20000 is not in the design; choose one of 10000"),
        ({"dose": "true"}, "dose: found True"),
        ({"view": "sparse"}, "view 'sparse' is not in the design; choose one of baseline"),
        ({"view": "densest"}, "view 'densest' is not in the design; choose one of baseline"),
        ({"run_folder": "rum"}, "rum: no design.json here; run notebook 00_design or"),
    ],
)
def test_a_notebook_is_not_started_for_what_its_run_does_not_have(
    changed, message, monkeypatch, tmp_path, study
):
    monkeypatch.setattr(
        "study_lib.runs.notebook.execute_notebook", lambda *_: pytest.fail("started")
    )
    design = load_design("smoke")
    create_run(tmp_path / "run", design.model_copy(update={"views": design.views[:1]}))
    values = {"run_folder": "run", "dose": "1.0e+4", "view": "baseline"} | changed
    given = [part for name, value in values.items() for part in ("-p", f"{name}={value}")]

    code, _, error = study("notebook", "02_overlap", "out.ipynb", *given)

    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("compared", "message"),
    [
        (["pinn", "solver"], "arm 'solvr': this condition has pinn, solver; choose one"),
        ([], "metrics.json: no such file; run `study compare`"),
    ],
)
def test_no_notebook_is_started_to_look_at_what_was_not_compared(
    compared, message, monkeypatch, tmp_path, study
):
    monkeypatch.setattr(
        "study_lib.runs.notebook.execute_notebook", lambda *_: pytest.fail("started")
    )
    run = create_run(tmp_path / "run", load_design("smoke"))
    if compared:
        folder = run.condition(1e4, "dense").folder("compare")
        write_json(folder / "metrics.json", [{"arm": arm} for arm in compared])
    values = ["run_folder=run", "dose=1.0e+4", "view=dense", "split=test", "arm=solvr"]
    values += ["pattern=0", "row_share=0.5", "sliders=never"]
    given = [part for value in values for part in ("-p", value)]

    code, _, error = study("notebook", "explore_run", "o.ipynb", *given)

    assert code == 2
    assert message in error


@pytest.mark.parametrize("compared", ["pinn-thinned", "thinning-net"])
@pytest.mark.parametrize("asked", ["pinn-thinned", "thinning-net"])
def test_the_former_name_of_an_arm_is_read_as_its_own(
    compared, asked, monkeypatch, tmp_path, study
):
    started = []
    monkeypatch.setattr(
        "study_lib.runs.notebook.execute_notebook", lambda name, *_: started.append(name)
    )
    run = create_run(tmp_path / "run", load_design("smoke"))
    folder = run.condition(1e4, "dense").folder("compare")
    write_json(folder / "metrics.json", [{"arm": compared}])
    values = ["run_folder=run", "dose=1.0e+4", "view=dense", "split=test", f"arm={asked}"]
    values += ["pattern=0", "row_share=0.5", "sliders=never"]
    given = [part for value in values for part in ("-p", value)]

    assert study("notebook", "explore_run", "o.ipynb", *given).code == 0
    assert started == ["explore_run"]


@pytest.mark.parametrize(
    ("notebook", "values"),
    [
        ("02_overlap", ["run_folder=run", "dose=10000", "view=sparse"]),
        ("00_design", ["run_folder=new", "preset=smoke", "base_npz=null"]),
        ("watch_run", ["run_folder=run", "every_s=1", "sliders=auto"]),
        (
            "lesson_dose_and_overlap",
            ["preset=smoke", "settings=[]", "doses=[7.0]", "targets=[0.5]", "draws=2"],
        ),
    ],
)
def test_a_notebook_is_started_where_its_run_has_what_it_needs(
    notebook, values, monkeypatch, tmp_path, study
):
    """The design makes its run, a lesson needs none, and a whole number is a dose."""
    started = []
    monkeypatch.setattr(
        "study_lib.runs.notebook.execute_notebook", lambda name, *_: started.append(name)
    )
    create_run(tmp_path / "run", load_design("smoke"))
    given = [part for value in values for part in ("-p", value)]

    code, _, error = study("notebook", notebook, "o.ipynb", *given)

    assert (code, error, started) == (0, "", [notebook])


def test_memory_that_runs_out_is_said_in_one_line(monkeypatch, study):
    def exhausted(*_, **__):
        raise MemoryError("8 GiB")

    monkeypatch.setattr("study_lib.design.presets.load_design", exhausted)

    code, _, error = study("design", "--preset", "smoke")

    assert code == 1
    assert error.startswith("study: memory ran out (8 GiB); use less data")
