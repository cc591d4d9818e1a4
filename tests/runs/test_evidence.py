"""A finished run is one piece: of one design, one code, with the summary that its scores give."""

import json
import re
from pathlib import Path

import pytest

from study_lib.files import read_csv, read_json, sha256_of, write_csv, write_json
from study_lib.runs.evidence import seal
from study_lib.runs.plan import digest_of_part
from study_lib.runs.run import open_run

pytestmark = pytest.mark.slow
SCORED = "05_compare__dose_10000__dense__test"


def change(path: Path, *names: object, to: object) -> None:
    """Set one value of a JSON file."""
    content = read_json(path)
    place = content
    for name in names[:-1]:
        place = place[name]
    assert place[names[-1]] != to
    place[names[-1]] = to
    write_json(path, content)


def test_a_sealed_run_is_complete_under_the_hash_that_was_printed(sealed_copy, study):
    printed = sha256_of(sealed_copy / "seal.json")

    code, out, error = study("verify", sealed_copy, "--seal", printed)
    assert (code, error) == (0, "")
    assert out.endswith("complete, every hash holds, and its tables follow from the scores\n")

    other = study("verify", sealed_copy, "--seal", "0" * 64)
    assert other.code == 1
    assert f"seal.json: has the SHA-256 {printed}, not 0000" in other.err

    for part in (printed[:8], "nonsense", ""):
        mistyped = study("verify", sealed_copy, "--seal", part)
        assert mistyped.code == 2
        assert "not a SHA-256; give all of its 64 hexadecimal digits" in mistyped.err
        assert "sealed again" not in mistyped.err, "nobody did"


def test_a_report_made_again_says_that_the_former_seal_is_void(sealed_copy, study):
    first = sha256_of(sealed_copy / "seal.json")
    (sealed_copy / "notes.txt").write_text("mine")

    code, out, _ = study("report", sealed_copy)

    assert code == 0
    assert f"the seal of before, {first}, does not hold any more" in out
    assert "does not hold any more" not in study("report", sealed_copy).out, "the same again"

    (sealed_copy / "jobs" / "06_summary" / "done.json").unlink()
    out = study("report", sealed_copy).out
    assert re.search(r"1 of \d+ jobs are not done: the run is not sealed", out)


def test_a_run_of_a_version_of_before_is_accused_of_nothing_it_did_not_do(sealed_copy, study):
    """It held more values for deciding, and wrote fewer files: neither is another design."""
    design = read_json(sealed_copy / "design.json")
    path = sealed_copy / "jobs" / SCORED / "done.json"
    record = read_json(path)
    record["design"]["part"]["replicates"] = design["replicates"]
    record["design"]["part_digest"] = digest_of_part(record["design"]["part"])
    write_json(path, record)
    summary = sealed_copy / "jobs" / "06_summary" / "done.json"
    record = read_json(summary)
    figure = "phase_h_summary/figures/cost.png"
    del record["sha256"][figure]
    (sealed_copy / figure).unlink()
    write_json(summary, record)

    error = study("verify", sealed_copy).err

    assert "was made with" not in error
    assert f"06_summary: made no {figure}, as this version would" in error

    change(path, "design", "part", "replicates", to=7)
    record = read_json(path)
    record["design"]["part_digest"] = digest_of_part(record["design"]["part"])
    write_json(path, record)
    assert f"{SCORED}: was made with replicates = 7" in study("verify", sealed_copy).err


def test_an_edited_design_is_named_before_all_that_follows_from_it(sealed_copy, study):
    renamed = sealed_copy.rename(sealed_copy.with_name("from_a_colleague"))
    change(renamed / "design.json", "doses", to=[2e4])

    lines = study("verify", renamed).err.splitlines()

    assert lines[0] == "study: design.json: differs from seal.json"
    assert len(lines) > 5


def test_another_design_in_a_finished_run_is_named_and_made_anew(sealed_copy, study):
    """The design is edited and the folder renamed for it, so that its name is right."""
    change(sealed_copy / "design.json", "training", "epochs", to=2)
    refused = study("resume", sealed_copy)
    digest = open_run(sealed_copy).design.digest
    name = f"{sealed_copy.name[:-8]}{digest}"

    assert refused.code == 2
    assert f"rename it to {name}, or undo the change of design.json" in refused.err
    assert "remove" not in refused.err

    renamed = sealed_copy.rename(sealed_copy.with_name(name))
    code, _, error = study("verify", renamed)
    assert code == 1
    lines = [line for line in error.splitlines() if "was made with training.epochs = 1" in line]
    made_by_it = {line.removeprefix("study: ").split(":")[0].split("__")[0] for line in lines}
    assert made_by_it == {"00_design", "03_train", "05_compare", "06_summary"}
    assert all("design.json has 2" in line for line in lines)

    code, _, error = study("resume", renamed)
    assert code == 0, error
    assert study("verify", renamed).code == 0
    done = read_json(renamed / "jobs" / "03_train__dose_10000__dense" / "done.json")
    assert done["design"]["part"]["training.epochs"] == 2
    kept = read_json(renamed / "jobs" / "01_dataset__dose_10000" / "done.json")
    assert kept["design"]["made_by"] == sealed_copy.name[-8:], "made by the first, and still right"


def test_a_record_says_with_what_its_job_was_computed(sealed_run):
    done = read_json(sealed_run / "jobs" / "03_train__dose_10000__dense" / "done.json")

    assert done["computed_with"]["device"] == ["cpu"]
    assert done["computed_with"]["threads"] == ["1"]
    assert done["computed_with"]["precision"] in (["float32"], ["bfloat16"])
    assert {"python", "numpy", "torch"} <= done["versions"].keys(), "those of the kernel"
    assert "papermill" not in done["versions"]


@pytest.mark.parametrize("what", [("code", "sources"), ("versions", "numpy")])
def test_two_codes_in_one_run_are_said_and_not_sealed(what, sealed_copy, study):
    change(sealed_copy / "jobs" / SCORED / "done.json", *what, to="0.1")

    reported = study("report", sealed_copy)
    seal(sealed_copy)
    verified = study("verify", sealed_copy)

    for code, _, error in (reported, verified):
        assert code == 1
        assert "05_compare: its jobs were computed by 2 codes: 3 by sources" in error
    index = (sealed_copy / "index.html").read_text()
    assert "05_compare: its jobs were computed by 2 codes" in index


def test_a_number_of_the_summary_that_no_score_gives_is_found_under_a_new_seal(sealed_copy, study):
    """The hashes that vouch for it are changed too: the records, the manifest and the seal."""
    folder = sealed_copy / "phase_h_summary"
    content = read_json(folder / "summary.json")
    content["study_table"][0]["phase_ssim"] = 0.999
    write_json(folder / "summary.json", content)
    rehash(sealed_copy, folder / "summary.json")

    code, _, error = study("verify", sealed_copy)

    assert code == 1
    assert "phase_h_summary/summary.json, study_table: row 1, phase_ssim: 0.999; the comp" in error
    assert len(error.splitlines()) == 1


def test_a_number_of_a_table_that_no_score_gives_is_found_too(sealed_copy, study):
    path = sealed_copy / "phase_h_summary" / "table.csv"
    rows = read_csv(path)
    rows[0]["phase_mse_rad2"] = "99.5"
    write_csv(path, rows)
    rehash(sealed_copy, path)

    code, _, error = study("verify", sealed_copy)

    assert code == 1
    assert "phase_h_summary/table.csv: row 1, phase_mse_rad2: 99.5; the comparisons give" in error


def rehash(run_folder: Path, path: Path) -> None:
    """Have every record of a run vouch for a file as it is now, and seal the run again."""
    place, now = path.relative_to(run_folder).as_posix(), sha256_of(path)
    for record in (*run_folder.glob("jobs/*/done.json"), *run_folder.glob("*/*_manifest.json")):
        content = json.loads(record.read_text())
        tables = [content.get("sha256", {}), content.get("inputs", {})]
        for one in content.get("jobs", {}).values():
            tables += [one.get("inputs", {}), one.get("outputs", {})]
        for table in tables:
            for name in table:
                if name == place or (record.parent / name).resolve() == path.resolve():
                    table[name] = now
        write_json(record, content)
    seal(run_folder)
