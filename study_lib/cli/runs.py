"""Commands on whole runs: plan, run, resume, status, open, answer, verify, publish, clean."""

import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study_lib.cli.designs import (
    AcceptDoubtful,
    BaseNpz,
    Doses,
    Overlaps,
    Points,
    Preset,
    Replicates,
    Settings,
    Simulated,
    Sobol,
    WantedQuality,
    changes_of,
    feasible,
)
from study_lib.errors import InputError, StudyError

if TYPE_CHECKING:
    from study_lib.design.models import StudyDesign
    from study_lib.runs.evidence import Digest
    from study_lib.runs.plan import PlannedJob
    from study_lib.runs.run import Run

FOLLOW_S = 2.0
CORES = 2

Reports = Annotated[Path, typer.Option(help="Where runs are kept.")]
Cores = Annotated[int, typer.Option(min=1, help="Jobs at the same time.")]
CoresOrProfile = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Jobs at the same time; default: {CORES}, or what the profile says.",
        show_default=False,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(help="Run the jobs on a cluster: slurm, pbs, or a folder with your own profile."),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0, help="Times a job is tried again that was ended from outside or ran out of memory."
    ),
]
NoReuse = Annotated[
    bool,
    typer.Option("--no-reuse", help="Compute everything here; default: what runs beside have."),
]
RunFolder = Annotated[
    Path | None, typer.Argument(help="A run's folder; default: the newest below reports/.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (run, plan, resume, status, report, answer, verify, publish, digest, clean):
        app.command()(command)
    app.command("open")(open_report)
    parameters = typer.Typer(help="Parameters of every notebook as files for papermill.")
    parameters.callback()(lambda: None)
    parameters.command("write")(write_parameters)
    app.add_typer(parameters, name="params")


def run(
    preset: Preset = "laptop",
    base_npz: BaseNpz = None,
    simulated: Simulated = False,
    accept_doubtful: AcceptDoubtful = False,
    doses: Doses = None,
    overlaps: Overlaps = None,
    points: Points = None,
    sobol: Sobol = None,
    wanted: WantedQuality = None,
    settings: Settings = None,
    replicates: Replicates = None,
    reports: Reports = Path("reports"),
    cores: CoresOrProfile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="The same as `study plan`.")
    ] = False,
    profile: Profile = None,
    retries: Retries = 1,
    no_reuse: NoReuse = False,
) -> None:
    """Run the whole study; a second call on the same day runs only what is missing.

    Example: study run --preset smoke --doses 1e3,1e4 --overlaps 0.7,0.5,0.3
    """
    from study_lib.runs import cluster, resources
    from study_lib.runs import run as runs
    from study_lib.runs.rules import RESOURCES_FILE

    profile_folder = cluster.profile_folder(profile) if profile else None
    design, jobs, derived = _planned(
        preset,
        base_npz,
        changes_of(
            settings, doses, overlaps, points, sobol, replicates, wanted, simulated=simulated
        ),
        reports,
        is_here=profile is None,
        accept_doubtful=accept_doubtful,
    )
    folder = reports / runs.run_name(design)
    if dry_run:
        _print_plan(folder, design, jobs, derived, cores or CORES, no_reuse=no_reuse)
        return
    made = runs.create_run(folder, design, base_npz)
    if not (folder / RESOURCES_FILE).exists():
        resources.write_resources(folder, derived["job_resources"])
    print(f"study {design.preset}, {len(jobs)} jobs, report folder {folder}", flush=True)
    _execute(made, jobs, cores, profile_folder, retries, no_reuse=no_reuse)


def plan(
    preset: Preset = "laptop",
    base_npz: BaseNpz = None,
    simulated: Simulated = False,
    accept_doubtful: AcceptDoubtful = False,
    doses: Doses = None,
    overlaps: Overlaps = None,
    points: Points = None,
    sobol: Sobol = None,
    wanted: WantedQuality = None,
    settings: Settings = None,
    replicates: Replicates = None,
    reports: Reports = Path("reports"),
    cores: Cores = CORES,
    no_reuse: NoReuse = False,
    one_by_one: Annotated[
        bool, typer.Option("--jobs", help="Each job by its name, not only each kind of them.")
    ] = False,
) -> None:
    """Tell what `study run` would execute, what it would take from other runs, and how long."""
    from study_lib.runs.run import run_name

    changes = changes_of(
        settings, doses, overlaps, points, sobol, replicates, wanted, simulated=simulated
    )
    design, jobs, derived = _planned(
        preset, base_npz, changes, reports, accept_doubtful=accept_doubtful
    )
    folder = reports / run_name(design)
    _print_plan(folder, design, jobs, derived, cores, no_reuse=no_reuse, one_by_one=one_by_one)


def _print_plan(
    folder: Path,
    design: "StudyDesign",
    jobs: "list[PlannedJob]",
    derived: Mapping[str, Any],
    cores: int,
    *,
    no_reuse: bool,
    one_by_one: bool = False,
) -> None:
    from study_lib.runs.job import jobs_to_do
    from study_lib.runs.reuse import reusable
    from study_lib.runs.speed import speed_of

    speed = speed_of(folder.parent, design.precision, cores)
    costs_s = {
        job.name: derived["estimated_job_cpu_s"][job.name] * speed.of(job.notebook) for job in jobs
    }
    reasons = jobs_to_do(folder, jobs)
    found = {} if no_reuse else reusable(folder, jobs)
    waiting = [job for job in jobs if job.name in reasons and job.name not in found]
    if one_by_one:
        for job in waiting:
            print(f"{job.name}\n    because {reasons[job.name]}")
    else:
        kinds = Counter((job.notebook, _kind_of(reasons[job.name])) for job in waiting)
        for (notebook, reason), count in kinds.items():
            print(f"{notebook}: {count} to do, because {reason}")
    taken = Counter(
        (job.notebook, found[job.name].run_folder.name) for job in jobs if job.name in found
    )
    for (notebook, other), count in taken.items():
        print(f"{notebook}: {count} taken from {other}")
    cpu_s = sum(costs_s[job.name] for job in waiting)
    longest_s = max((costs_s[job.name] for job in waiting), default=0.0)
    minutes = math.ceil(max(cpu_s / cores, longest_s) / 60)
    duration = f"{minutes} minute{'' if minutes == 1 else 's'}"
    print(
        f"{len(waiting)} of {len(jobs)} jobs in {folder}, about {duration} with {cores} "
        f"at the same time ({speed.basis}; good to a third); nothing was written"
    )


def _kind_of(reason: str) -> str:
    """Return the reason why a job runs without the names of its file or of another job."""
    if reason.endswith("runs before it"):
        return "a job before it runs"
    return re.sub(r"^its (input|output) \S+ ", r"an \1 ", reason)


def resume(
    folder: RunFolder = None,
    cores: CoresOrProfile = None,
    profile: Profile = None,
    retries: Retries = 1,
    no_reuse: NoReuse = False,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="End jobs that still live on a cluster; default: wait."),
    ] = False,
) -> None:
    """Go on with a run that was stopped, on whatever day it began."""
    from study_lib.runs import cluster
    from study_lib.runs import run as runs

    profile_folder = cluster.profile_folder(profile) if profile else None
    folder, design, jobs = _opened(folder)
    runs.require_not_published(folder, "resume the run itself")
    runs.require_own_name(folder, design)
    print(f"study {design.preset}, {len(jobs)} jobs, report folder {folder}", flush=True)
    made = runs.open_run(folder)
    _execute(made, jobs, cores, profile_folder, retries, no_reuse=no_reuse, cancel=cancel)


def status(
    folder: RunFolder = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run stops.")
    ] = False,
) -> None:
    """Show the progress of a run, what runs now, and what failed and why."""
    from study_lib.runs import progress

    folder, _, jobs = _opened(folder)
    last = None
    while True:
        lines = progress.status_lines(folder, jobs)
        if lines != last:
            print("\n".join(lines), flush=True)
        last = lines
        if not follow or not progress.is_being_run(folder):
            return
        time.sleep(FOLLOW_S)


def report(
    folder: RunFolder = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="A run with simulated counts of the same base data, whose ranks those of measured "
            "counts are held against; default: the newest beside the run."
        ),
    ] = None,
) -> None:
    """Write the report of a run again: index.html, a page per notebook, RO-Crate metadata."""
    from study_lib.runs import evidence, progress
    from study_lib.runs import run as runs

    folder, design, jobs = _opened(folder)
    runs.require_not_published(folder, "report the run itself and publish it again")
    runs.require_own_name(folder, design)
    if progress.is_being_run(folder):
        raise InputError(f"{folder} is being run; its report is written at the end")
    former = evidence.digest_of(folder / evidence.SEAL_FILE)
    digest = cache(evidence.digest_of)
    print(_write_report(folder, jobs, digest, against))
    states = progress.states_of(folder, jobs).values()
    waiting = sum(state != "done" for state in states)
    if waiting:
        print(f"{waiting} of {len(jobs)} jobs are not done: the run is not sealed")
        return
    seal = evidence.finish(folder, digest)
    _write_results(folder)
    _print_seal(folder, seal)
    if former not in (None, seal):
        print(f"the seal of before, {former}, does not hold any more")


def open_report(folder: RunFolder = None) -> None:
    """Open the report of a run in the browser, and print where it lies.

    Example: study open
    """
    import webbrowser

    from study_lib.files import require_no_link_out

    folder = folder or _newest()
    require_no_link_out(folder)
    page = folder / "index.html"
    if not page.is_file():
        raise InputError(f"{page} does not exist; `study report {page.parent}` writes it")
    print(page)
    if not webbrowser.open(page.resolve().as_uri()):
        print("study: no browser was found; open the page by hand", file=sys.stderr)


def answer(folder: RunFolder = None, wanted: WantedQuality = None) -> None:
    """Print what a run answers: photons saved, least dose for a wanted quality, best overlap.

    From its comparisons as they are; nothing is written. Example:

    study answer reports/2026-11-29_laptop_267b7a6b --wanted phase_error=0.05 --wanted ssim=0.9
    """
    from study_lib.phases.summary import answers_in
    from study_lib.runs.run import open_run

    for line in answers_in(open_run(folder or _newest()), wanted or ()):
        print(line)


def verify(
    folder: RunFolder = None,
    seal: Annotated[
        str | None, typer.Option(help="The SHA-256 that was printed when the run ended.")
    ] = None,
) -> None:
    """Check that a run is complete, as it was sealed, and of one design and one code.

    Every file is held against the hashes that jobs, phases and seal recorded, every job against
    design.json, and the tables of the summary against the comparisons. Who can write in the folder
    can also write records and seal anew: only a SHA-256 of the seal that was kept elsewhere shows
    that.
    """
    from study_lib.runs.evidence import faults_of_run
    from study_lib.runs.run import left_out, open_run

    if seal is not None and not re.fullmatch("[0-9a-fA-F]{64}", seal):
        raise InputError(f"--seal {seal}: not a SHA-256; give all of its 64 hexadecimal digits")
    folder = folder or _newest()
    faults = faults_of_run(folder, seal)
    if not faults:
        from study_lib.phases.summary import differing_numbers

        faults = differing_numbers(open_run(folder))
    if faults:
        raise StudyError("\n".join(faults))
    missing = len(left_out(folder))
    copy = f" (a published copy, {missing} files left out)" if missing else ""
    print(f"{folder}: complete, every hash holds{copy}, and its tables follow from the scores")


def publish(
    run_folder: Annotated[Path, typer.Argument(metavar="run", help="A finished run.")],
    folder: Annotated[Path, typer.Argument(help="Where the copy goes; must not exist.")],
    author: Annotated[
        list[str] | None, typer.Option(help="Who made the run, for its crate; repeat it.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="License of its files, a name or an address; default: none is given."),
    ] = None,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="With patterns, objects and networks.")
    ] = False,
) -> None:
    """Write a copy of a run that can be shown: no paths, host or user, no engine log, no arrays.

    Records vouch for the files as they are in the copy, which is sealed anew, and it is checked for
    the values of secret variables. `study verify` takes it as it takes a run. Look through it once
    yourself: what your own notebooks print is not known here.

    Example: study publish reports/2026-11-29_smoke_8c5c4823 shown --author "Ada Lovelace"
    """
    from study_lib.runs.crate import Credit
    from study_lib.runs.publish import publish as write_copy

    credit = Credit(tuple(author or ()), license)
    count = write_copy(run_folder, folder, os.environ, credit=credit, with_arrays=arrays)
    print(f"{folder}: {count} files; `study verify {folder}` checks them")


def digest(
    folder: RunFolder = None,
    items: Annotated[
        bool, typer.Option("--items", help="First one line for each value, for `diff`.")
    ] = False,
) -> None:
    """Print one SHA-256 over a run's arrays, weights, positions, scores and choices.

    Equal results have equal digests, whatever the date, place, name and duration of the run. With
    --items it is the SHA-256 of the lines before it.
    """
    from study_lib.runs.digest import digest_of_run

    value, lines = digest_of_run(folder or _newest())
    for line in lines if items else ():
        print(line)
    print(value)


def clean(
    folder: RunFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="List the files; remove nothing.")
    ] = False,
) -> None:
    """Remove what is no evidence: notebooks of failed tries, notebook checkpoints, locks."""
    from study_lib.runs.progress import leftovers_of, remove

    folder = folder or _newest()
    found = leftovers_of(folder)
    for path in found:
        print(path)
    if dry_run:
        print(f"{len(found)} leftovers; nothing was removed")
        return
    print(f"{len(found)} leftovers removed, {remove(found) / 2**20:.1f} MiB")


def write_parameters(
    preset: Preset = "laptop",
    settings: Settings = None,
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = Path("parameters"),
    run_folder: Annotated[
        str | None,
        typer.Option(help="The run's folder in each file; default: reports/ and the preset."),
    ] = None,
) -> None:
    """Write one file per job, like parameters/train/dose1000_baseline.yaml, for papermill -f."""
    from study_lib.design import presets
    from study_lib.runs import plan as plans
    from study_lib.runs.forecast import check_network

    design = presets.load_design(preset, settings or ())
    check_network(design)
    place = run_folder or f"reports/{design.preset}"
    written = plans.write_parameter_files(folder, design, place, preset)
    print(f"{len(written)} files below {folder}")


def _planned(
    preset: str,
    base_npz: Path | None,
    changes: tuple[Sequence[str], Mapping[str, Any]],
    reports: Path,
    *,
    is_here: bool = True,
    accept_doubtful: bool = False,
) -> "tuple[StudyDesign, list[PlannedJob], Mapping[str, Any]]":
    """Return a design that can be carried out, its jobs, and what follows from it.

    ``is_here`` says whether this machine carries it out, and not a cluster.
    """
    from study_lib.physics.probe import modes_of
    from study_lib.runs.forecast import derived_matrix
    from study_lib.runs.plan import plan_jobs
    from study_lib.runs.room import check_disk, check_memory
    from study_lib.runs.run import run_name

    design, scene = feasible(preset, base_npz, *changes, accept_doubtful=accept_doubtful)
    check_disk(design, scene, reports / run_name(design))
    jobs, derived = plan_jobs(design), derived_matrix(design, scene)
    if is_here:
        check_memory(design, derived["views"], jobs, len(modes_of(scene.probe)))
    return design, jobs, derived


def _execute(
    run: "Run",
    jobs: "list[PlannedJob]",
    cores: int | None,
    profile: Path | None,
    retries: int,
    *,
    no_reuse: bool,
    cancel: bool = False,
) -> None:
    from study_lib.phases.conditions import PlacesBelow
    from study_lib.runs import engine, evidence

    folder = run.folder
    engine.run_plan(
        folder,
        jobs,
        cores if cores or profile else CORES,
        partial(print, flush=True),
        profile=profile,
        before=(lambda: None) if no_reuse else partial(_take, run, jobs),
        retries=retries,
        cancel=cancel,
    )
    digest = cache(evidence.digest_of)  # one pass over the files, for the crate and the seal
    index = _write_report(folder, jobs, digest)
    seal = evidence.finish(folder, digest)
    summary = PlacesBelow(folder).root("summary") / "summary.md"
    print(summary.read_text(encoding="utf-8"))
    print(f"executed notebooks: {folder / 'notebooks'}")
    print(f"summary:            {summary}")
    print(f"report:             {index}")
    _write_results(folder)
    _print_seal(folder, seal)


def _take(run: "Run", jobs: "list[PlannedJob]") -> None:
    """Copy what other runs have done, and say so."""
    from study_lib.runs import reuse

    taken = reuse.take(run, jobs)
    if taken:
        print(f"{len(taken)} jobs taken from other runs: {reuse.counted_runs(taken)}", flush=True)


def _print_seal(folder: Path, seal: str) -> None:
    print(f"seal (SHA-256):     {seal}; keep it elsewhere, for `study verify {folder} --seal`")


def _write_results(folder: Path) -> None:
    """Write the rows of a finished run beside it, and say where; where none may, warn."""
    from study_lib.runs.results import write_results

    try:
        print(f"results:            {write_results(folder)}")
    except OSError as error:  # the run itself is finished, and complete without them
        print(f"warning: the rows for `study history` were not written: {error}", file=sys.stderr)


def _write_report(
    folder: Path, jobs: "list[PlannedJob]", digest: "Digest", against: Path | None = None
) -> Path:
    """Return the first page of a run's report, made anew; warn of secrets in the run's files."""
    from study_lib.runs.evidence import exposed_values
    from study_lib.runs.report import write_ranks, write_site

    for line in write_ranks(folder, against):
        print(line)
    print(f"writing the report, a page for each of {len(jobs)} notebooks ...", flush=True)
    index = write_site(folder, jobs, digest)
    for line in exposed_values(folder, os.environ):
        print(f"warning: {folder}: {line}; do not publish it", file=sys.stderr)
    return index


def _opened(folder: Path | None) -> "tuple[Path, StudyDesign, list[PlannedJob]]":
    """Return the folder of a run, the newest by default, with its design and jobs."""
    from study_lib.runs.plan import plan_jobs
    from study_lib.runs.run import open_run

    folder = folder or _newest()
    design = open_run(folder).design
    return folder, design, plan_jobs(design)


def _newest() -> Path:
    """Return the run below reports/ whose design was written last."""
    found = sorted(Path("reports").glob("*/design.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError("reports: no run here; give the folder of one, or begin with `study run`")
    return found[-1].parent
