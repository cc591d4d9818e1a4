"""Profiles of clusters, and the jobs of a run that still live there."""

import os
from pathlib import Path

import pytest

from study_lib.errors import InputError, StudyError
from study_lib.runs import cluster
from study_lib.runs.cluster import PROFILES, cancel, live_jobs, profile_folder, run_tag


def put_on_path(folder: Path, monkeypatch, **programs: str) -> None:
    """Put shell scripts on the path, before all others."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_tag_is_the_runs_own_and_short_enough_for_every_scheduler(tmp_path):
    tags = {run_tag(tmp_path / name) for name in "abc"}

    assert len(tags) == 3
    assert all(len(tag) <= 15 and tag.replace("-", "").isalnum() for tag in tags)
    assert run_tag(tmp_path / "a") == run_tag(tmp_path / "b" / ".." / "a")


def test_queued_and_running_jobs_of_this_run_are_found_and_no_others(tmp_path, monkeypatch):
    mine, other = run_tag(tmp_path), run_tag(tmp_path / "other")
    lines = (
        f"7|{mine}_0f|RUNNING|rule_03_train__dose_10000__dense",
        f"8|{mine}_0f|PENDING|rule_00_design",
        f"9|{other}_0f|RUNNING|rule_00_design",
        "10|bash|RUNNING|(null)",
    )
    said = "\n".join(lines)
    put_on_path(tmp_path, monkeypatch, squeue=f"cat <<'END'\n{said}\nEND", qselect="true")

    live = live_jobs(tmp_path, [], must_answer=True)

    assert [job.number for job in live] == ["7", "8"]
    assert live[0].text == "03_train__dose_10000__dense (SLURM 7, RUNNING)"


def test_only_what_a_scheduler_knows_is_cancelled(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, scancel=f'echo "$@" >> {tmp_path}/cancelled')

    cancel([cluster.LiveJob("held here"), cluster.LiveJob("a", "SLURM", "7")])

    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_scheduler_that_does_not_answer_stops_a_run_on_a_cluster_only(tmp_path, monkeypatch):
    """On the cluster the jobs may live; beside it the question was only a precaution."""
    put_on_path(tmp_path, monkeypatch, squeue="echo Unable to contact >&2; exit 1", qselect="true")

    with pytest.raises(StudyError, match=r"squeue does not answer \(Unable to contact\)"):
        live_jobs(tmp_path, [], must_answer=True)
    assert live_jobs(tmp_path, [], must_answer=False) == []


def test_an_unknown_profile_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"choose pbs, slurm, or the path of a folder"):
        profile_folder(str(tmp_path / "nothing"))


def test_a_profile_without_its_plugin_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("executor: no-such-scheduler\n")

    with pytest.raises(InputError, match="snakemake-executor-plugin-no-such-scheduler is not"):
        profile_folder(str(tmp_path))


@pytest.mark.parametrize("text", ["executor: [slurm\n", "cores: &n 3\njobs: *n\n"])
def test_a_broken_profile_is_refused(text, tmp_path):
    """And one with aliases, a few lines of which stand for more than fits into memory."""
    (tmp_path / "config.yaml").write_text(text)

    with pytest.raises(InputError, match="not readable as YAML"):
        profile_folder(str(tmp_path))


def test_a_profile_of_the_users_own_may_run_everything_here(tmp_path):
    (tmp_path / "config.yaml").write_text("cores: 3\n")

    assert profile_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", sorted(path.name for path in PROFILES.iterdir()))
def test_profiles_of_the_study_bear_the_tag_by_which_resume_finds_their_jobs(name):
    executor = cluster.executor_of(PROFILES / name)
    text = (PROFILES / name / "config.yaml").read_text()

    assert executor == "slurm" or "-N $STUDY_RUN_TAG" in text
