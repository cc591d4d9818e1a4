"""The files of parameters: in step with the preset, valid, and what papermill takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study_lib.design.notebooks import parameters_of
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.runs.plan import parameter_files, plan_jobs, write_parameter_files

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = ROOT / "parameters"
NOTEBOOK_OF = {path.stem[3:]: path.stem for path in (ROOT / "notebooks").glob("0*.ipynb")}


def committed() -> list[Path]:
    return sorted(path for path in PARAMETERS.glob("*/*.yaml") if path.parent.name != "presets")


def test_committed_files_are_those_that_the_preset_gives(tmp_path):
    """After a change of the preset: `study params write`, and remove what is not written."""
    written = write_parameter_files(tmp_path, load_design("laptop"), "reports/laptop")

    expected = {path.relative_to(tmp_path): path.read_text() for path in written}
    assert {path.relative_to(PARAMETERS): path.read_text() for path in committed()} == expected
    assert len(expected) == len(plan_jobs(load_design("laptop")))


@pytest.mark.parametrize("path", committed(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_holds_valid_parameters_of_its_notebook(path):
    """As papermill reads them: a dose that YAML took for a text would be refused here."""
    values = yaml.safe_load(path.read_text())

    parameters = parameters_of(NOTEBOOK_OF[path.parent.name], values)

    assert parameters.model_dump() == values


def test_replicates_are_left_out():
    one, three = (load_design("smoke", [f"replicates={count}"]) for count in (1, 3))

    assert parameter_files(three, "x") == parameter_files(one, "x")


def test_a_run_folder_without_a_name_is_refused():
    with pytest.raises(InputError, match="run_folder"):
        parameter_files(load_design("smoke"), "")


@pytest.mark.slow
@pytest.mark.notebook
def test_papermill_takes_a_file_as_the_readme_says(tmp_path):
    """From a folder with notebooks/ and parameters/ in it; the run lies in reports/laptop."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    (tmp_path / "parameters").symlink_to(PARAMETERS)
    words = ("notebooks/00_design.ipynb", "00.ipynb", "-f", "parameters/design/laptop.yaml")

    result = subprocess.run(
        [sys.executable, "-m", "papermill", *words, "--no-progress-bar"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "reports" / "laptop" / "design.json").is_file()
