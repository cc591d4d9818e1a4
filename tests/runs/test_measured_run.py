"""A whole study of measured counts by the command, beside one of simulated counts of its object."""

import json
import re
from pathlib import Path

import pytest
from command_line import exit_code
from measured_data import STUDY_SETTINGS, write_measurement

from study_lib.files import read_csv
from study_lib.runs.run import open_run

pytestmark = pytest.mark.slow
MORE_SETTINGS = (
    "views=[{name: baseline, gridsize: 1, target_overlap: null}, "
    "{name: dense, gridsize: 2, target_overlap: 0.9}]",
    "iterative.epochs=30",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A finished run of each source; the simulated one first, so that the other finds it."""
    folder = tmp_path_factory.mktemp("measured")
    write_measurement(folder / "scan.npz")
    words = [
        "--preset",
        "smoke",
        "--base-npz",
        folder / "scan.npz",
        "--reports",
        folder / "reports",
    ]
    for setting in (*STUDY_SETTINGS, *MORE_SETTINGS):
        words += ["--set", setting]
    found: dict[str, Path] = {}
    for source, more in (("simulated", ["--simulated"]), ("measured", ["--replicates", "2"])):
        assert exit_code("run", *words, *more) == 0
        designs = set((folder / "reports").glob("*/design.json"))
        (found[source],) = {path.parent for path in designs} - set(found.values())
    return found


def summary_of(run: Path) -> dict:
    return json.loads((run / "phase_h_summary" / "summary.json").read_text())


def test_the_run_is_complete_has_all_arms_and_every_hash_holds(runs):
    assert exit_code("verify", runs["measured"]) == 0
    summary = summary_of(runs["measured"])
    assert not summary["missing"]
    arms = {row["arm"] for row in summary["study_table"]}
    assert arms == {"pinn", "thinning-net", "lsqml", "lsqml-denoised", "solver", "solver-denoised"}
    assert (runs["measured"] / "notebooks" / "01_reference__replicate_1.ipynb").is_file()


def test_no_sentence_of_a_measured_run_calls_its_reference_the_truth(runs):
    run = runs["measured"]
    pages = [run / "index.html", run / "phase_h_summary" / "summary.md", *run.glob("html/*.html")]
    allowed = ("no truth", "not the truth")
    code = re.compile('<div class="[^"]*highlight[^"]*">.*?</pre>', re.DOTALL)
    for page in pages:
        text = " ".join(re.sub("<[^>]*>", " ", code.sub("", page.read_text())).split())
        for words in allowed:
            text = text.replace(words, "")
        assert "truth" not in text.casefold(), (page.name, re.findall(".{40}truth.{20}", text))


def test_the_summary_says_what_was_measured_how_draws_agree_and_where_ranks_differ(runs):
    lines = "\n".join(summary_of(runs["measured"])["measured"]["lines"])
    assert "half are the arms'" in lines
    assert "The reference is made by" in lines
    assert "Objects of draws 0 and 1, whose arms share no photon, each with a probe from" in lines
    assert f"against simulated counts of the same base data ({runs['simulated'].name})" in lines
    draws = read_csv(runs["measured"] / "phase_h_summary" / "draws.csv")
    assert {row["draws"] for row in draws} == {"0 and 1"}
    assert {row["arms_photons_shared"] for row in draws} == {"0"}
    assert {row["arm"] for row in draws} >= {"lsqml", "solver"}
    assert "measured" not in summary_of(runs["simulated"])


def test_ranks_are_a_table_beside_the_summary_and_the_seal_holds_after_a_report(runs, capsys):
    run = runs["measured"]
    assert exit_code("report", run, "--against", runs["simulated"]) == 0
    assert "order the arms otherwise" in capsys.readouterr().out
    rows = read_csv(run / "phase_h_summary" / "rank_differences.csv")
    assert {"phase_ssim_rank_measured", "phase_psnr_db_difference"} <= rows[0].keys()
    assert exit_code("verify", run) == 0
    assert exit_code("report", runs["simulated"], "--against", run) == 2
    assert exit_code("report", run, "--against", run) == 2


def test_the_view_that_keeps_every_pattern_was_computed_once(runs):
    manifest = runs["measured"] / "phase_f_iterative" / "reconstruction_manifest.json"
    jobs = json.loads(manifest.read_text())["jobs"]
    taken = {key for key, job in jobs.items() if job["results"].get("taken_from_view")}
    assert taken == {key for key in jobs if "/dense/" in key}
    thinned = runs["measured"] / "phase_e_training" / "dose_4000" / "dense" / "thinned"
    assert json.loads((thinned / "thinned.json").read_text())["taken_from_view"] == "baseline"


def test_networks_are_trained_in_the_first_draw_alone(runs):
    table = {
        (row["arm"], row["view"]): row["replicates"]
        for row in summary_of(runs["measured"])["study_table"]
    }
    assert table["pinn", "baseline"] == 1
    assert table["solver", "baseline"] == 2
    assert open_run(runs["measured"]).design.trained_replicates == 1
