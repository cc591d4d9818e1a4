"""Many jobs, one after the other: one that fails does not keep the others from running."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from study_lib.errors import InputError, StudyError
from study_lib.phases.conditions import SkippedView, write_skip_summary


def batch(
    jobs: Sequence[Mapping[str, Any]], function: Callable[..., Any], *, dry_run: bool
) -> None:
    """Run every job; one that fails is reported and the others still run.

    Raises
    ------
    StudyError
        If a job failed; an InputError if no job could be done and every failure was one.
    """
    labels = [" ".join(f"{name}={value}" for name, value in job.items()) for job in jobs]
    if dry_run:
        print("\n".join(labels))
        return
    calls = [partial(function, **job) for job in jobs]
    run_labelled(dict(zip(labels, calls, strict=True)), dry_run=False)


def run_labelled(jobs: Mapping[str, Callable[[], Any]], *, dry_run: bool) -> None:
    """Run every job under its label; see :func:`batch`. In a dry run none is told to be done.

    Raises
    ------
    StudyError
        If a job failed; an InputError if no job could be done and every failure was one.
    """
    failures: list[StudyError] = []
    for label, job in jobs.items():
        try:
            job()
        except StudyError as error:
            print(f"{label}: failed: {error}", file=sys.stderr)
            failures.append(error)
            continue
        except KeyboardInterrupt as stop:
            print(f"{label}: {stop or 'stopped'}", file=sys.stderr)
            raise
        if not dry_run:
            print(f"{label}: done", flush=True)
    if failures:
        message = f"{len(failures)} of {len(jobs)} jobs failed"
        if len(failures) == len(jobs) and all(isinstance(one, InputError) for one in failures):
            raise InputError(message)
        raise StudyError(message)


def tell_skipped(
    skipped: Sequence[SkippedView], artifact_root: Path, *, jobs_left: int, dry_run: bool
) -> None:
    """Print which views are left out, and write it down unless nothing is to be written.

    A dry run has only plans on standard output, and tells it on standard error.

    Raises
    ------
    InputError
        If no job is left.
    """
    for missing in skipped:
        print(
            f"skipped dose={missing.dose:g} view={missing.view}: {missing.reason}",
            file=sys.stderr if dry_run else sys.stdout,
        )
    if not dry_run:
        write_skip_summary(artifact_root, skipped)
    if not jobs_left:
        raise InputError("every view that was asked for is missing; run `study overlap` first")
