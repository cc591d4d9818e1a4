"""What each job of a plan costs, and what it asks a cluster for."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from study_lib.arm_names import algorithm_of
from study_lib.design.axes import SPLITS
from study_lib.design.methods import IterativeDesign, ThinnedDesign
from study_lib.design.models import StudyDesign
from study_lib.design.settings import Frozen, describe_faults
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.runs.plan import PlannedJob
from study_lib.runs.rules import DEFAULT_NEED, RESOURCES_FILE

# --- Threads, memory, minutes and GPUs that a job asks a cluster for

# Processor seconds of the reference machine, one core of a laptop; another has a factor, see speed.
# Fitted to recorded runs of smoke, laptop and a measured star, 32 to 128 pixels a side.
NOTEBOOK_S = 4.0
STEP_S = 0.018  # of a training step, whatever its size
GROUP_S_PER_PIXEL = 8.3e-7
PATTERN_S_PER_PIXEL = 7.5e-8
ENGINE_S_PER_PIXEL = 1.3e-7  # LSQML of pty-chi
CONVERGED_SHARE = 0.5  # of its epochs, where it stops by itself: about 40 of 100, or 80 if sparse
SOLVER_S_PER_PIXEL = 1.9e-8
CHOICE_S_PER_PIXEL = 8.0e-5  # of an object pixel, for the choice of a denoiser
ALTERNATED_S_PER_PIXEL = 1.4e-6  # of an object pixel that is denoised once, in turn with a step
EPOCHS_OF_CHOICE = 580  # in which an alternation is chosen
ALTERNATION_EPOCHS = 40
LIMIT_S_PER_PIXEL = 6.0e-7  # of one solve
APPLIED_S_PER_PIXEL = 1.2e-5  # of an object pixel that a member improves
THINNING_S_PER_PIXEL = 3.0e-7  # of one thinning: the solver, and the gradient at its object
DENOISED_S_PER_PIXEL = 1.2e-5  # of an object pixel, for the objects that are denoised once
FAMILIES_IN_TURN = 2  # of one thinning
IN_TURN_S_PER_PIXEL = 4.0e-7  # of an object pixel that is denoised in turn by the cheaper families
# Alternations of these two families, and after how many epochs no more of them go on.
CHOSEN_IN_TURN = ((15, 10), (8, 20), (5, math.inf))
CHOICE_DENOISED = 6  # times as much denoised once for the choices as for a thinning
SHOWN_S_PER_PIXEL = 5.2e-8  # of a pattern that a step explains
CONVOLVED_S_PER_PIXEL = 1.3e-8  # of an object pixel, a step and a channel of the three stages

BESIDE_SPLITS = 1.5  # positions of a scan, those of the guard band among them, over the splits'

Sizes = Mapping[tuple[str, str], tuple[int, int]]


def job_costs(
    design: StudyDesign, sizes: Sizes, jobs: Sequence[PlannedJob], object_px: int, modes: int = 1
) -> dict[str, float]:
    """Return processor seconds of every job by name, on the reference machine.

    Parameters
    ----------
    design
        The design.
    sizes
        (patterns, groups) of each (view, split).
    jobs
        From :func:`study_lib.runs.plan.plan_jobs` with the same design.
    object_px
        Pixels of the object.
    modes
        Of the probe: each has exit waves of its own.
    """
    by_name = {job.name: job for job in jobs}
    trained = {job.parameters["run_folder"] for job in jobs if job.notebook == "03_train_thinned"}
    untrained = design.model_copy(update={"thinned": None})  # replicates without networks

    def cost_s(job: PlannedJob) -> float:
        others = (by_name[name] for name in job.after_same_notebook if name in by_name)
        if any(_hold_the_same(sizes, job, other) for other in others):
            return NOTEBOOK_S
        own = design if job.parameters["run_folder"] in trained else untrained
        return NOTEBOOK_S + _work_s(own, sizes, job, object_px, modes)

    return {job.name: cost_s(job) for job in jobs}


def _hold_the_same(sizes: Sizes, job: PlannedJob, other: PlannedJob) -> bool:
    """Return whether the views of two jobs keep as many patterns: then one takes from the other."""
    one, two = (str(each.parameters["view"]) for each in (job, other))
    return all(sizes[one, split][0] == sizes[two, split][0] for split in SPLITS)


def _work_s(
    design: StudyDesign, sizes: Sizes, job: PlannedJob, object_px: int, modes: int
) -> float:
    """Return what a job does beside starting; convolutions grow with the width squared."""
    side2 = design.patch_size_px**2
    pixels = modes * side2  # of exit waves of a pattern
    view, split = job.parameters.get("view"), job.parameters.get("split", "train")
    training = design.training
    if job.notebook == "03_train" and training is not None:
        groups = sizes[str(view), "train"][1]
        shown = max(training.epochs * groups, training.steps_min * training.batch_size)
        convolved_s = GROUP_S_PER_PIXEL * training.filters_scale**2 * side2
        waves_s = PATTERN_S_PER_PIXEL * design.view(str(view)).gridsize ** 2 * pixels
        return STEP_S * shown / training.batch_size + (convolved_s + waves_s) * shown
    if job.notebook == "01_reference":
        positions = sum(max(sizes[one.name, part][0] for one in design.views) for part in SPLITS)
        each_s = design.reference_epochs * (ENGINE_S_PER_PIXEL + SOLVER_S_PER_PIXEL)
        return each_s * pixels * positions * BESIDE_SPLITS
    patterns = sizes[str(view), str(split)][0] if view else 0
    if job.notebook == "03_train_thinned" and design.thinned is not None:
        tested = sizes[str(view), "test"][0]
        return _thinned_s(design.thinned, patterns, tested, pixels, object_px)
    if job.notebook == "04_reconstruct":
        iterative = design.iterative
        per_pattern_s = sum(
            _epochs_s(iterative, algorithm_of(name)) for name in iterative.algorithms
        )
        choice_s = 0.0
        if iterative.chooses and split == "train":  # once more, on a share of the photons
            again_s = SOLVER_S_PER_PIXEL * iterative.solver.epochs
            per_pattern_s += per_pattern_s if iterative.denoised else again_s
            if iterative.denoised:
                choice_s = CHOICE_S_PER_PIXEL * object_px * len(iterative.algorithms)
            if iterative.alternating:
                per_pattern_s += SOLVER_S_PER_PIXEL * EPOCHS_OF_CHOICE
                choice_s += ALTERNATED_S_PER_PIXEL * object_px * EPOCHS_OF_CHOICE
        return per_pattern_s * pixels * patterns + choice_s
    if job.notebook == "05_compare":
        per_pattern_s, applied_s = LIMIT_S_PER_PIXEL * design.metrics.photon_limit_solves, 0.0
        if design.iterative.alternating:
            per_pattern_s += SOLVER_S_PER_PIXEL * ALTERNATION_EPOCHS
            applied_s += ALTERNATED_S_PER_PIXEL * object_px * ALTERNATION_EPOCHS
        if design.thinned is not None:  # its object, those of its spread, and those that judge it
            networks, thinnings = len(design.thinned.taught_by), design.thinned.thinnings
            shown = networks * (1 + thinnings) + (thinnings if split == "test" else 0)
            applied_s += APPLIED_S_PER_PIXEL * design.thinned.members * shown * object_px
            inputs = shown + networks * design.thinned.base_shown
            epochs = inputs * FAMILIES_IN_TURN * design.thinned.epochs_in_turn
            per_pattern_s += inputs * THINNING_S_PER_PIXEL + epochs * SOLVER_S_PER_PIXEL
            denoised_s = inputs * DENOISED_S_PER_PIXEL + epochs * IN_TURN_S_PER_PIXEL
            applied_s += denoised_s * object_px
        return per_pattern_s * pixels * patterns + applied_s
    return 0.0


def _epochs_s(iterative: IterativeDesign, engine: str) -> float:
    """Return what an algorithm takes for a detector pixel of a pattern."""
    if engine == "solver":
        return SOLVER_S_PER_PIXEL * iterative.solver.epochs
    converges = engine == "LSQML" and iterative.tolerance > 0
    share = CONVERGED_SHARE if converges else 1.0
    return ENGINE_S_PER_PIXEL * share * iterative.epochs


def _thinned_s(
    thinned: ThinnedDesign, patterns: int, tested: int, pixels: int, object_px: int
) -> float:
    """Return what the training of a thinning network takes, and its object of the test split.

    ``patterns`` teach it and ``tested`` are of the test split, each of so many ``pixels``.
    """
    steps = thinned.members * thinned.steps
    shown = steps * min(thinned.patterns_per_step, patterns)
    inputs = thinned.sets + 1  # one to choose the last smoothing; another is scored at the end
    in_turn = FAMILIES_IN_TURN * thinned.epochs_in_turn
    input_s = THINNING_S_PER_PIXEL + in_turn * SOLVER_S_PER_PIXEL
    chosen = choice_epochs(thinned.epochs_in_turn)
    choice_s = chosen * SOLVER_S_PER_PIXEL * patterns
    epochs = (inputs + 1) * in_turn + chosen
    denoised_s = DENOISED_S_PER_PIXEL * (inputs + 1 + CHOICE_DENOISED)
    return (
        pixels * (input_s * (inputs * patterns + tested) + choice_s + SHOWN_S_PER_PIXEL * shown)
        + object_px * (denoised_s + IN_TURN_S_PER_PIXEL * epochs)
        + CONVOLVED_S_PER_PIXEL * object_px * steps * sum(thinned.widths)
    )


def choice_epochs(longest: int) -> int:
    """Return the epochs in which the thinning network's alternation of so many is chosen."""
    taken = before = 0
    for alternations, until in CHOSEN_IN_TURN:
        after = int(min(until, longest))
        taken, before = taken + alternations * (after - before), after
    return taken


# --- What each job of a plan asks a cluster for: threads, memory, minutes, GPUs

START_MIN = 10  # imports from a slow shared folder, twice the engine, a kernel
COST_MARGIN = {"03_train": 8.0}  # networks of the user's own may be slower
COST_MARGIN_ELSE = 5.0
# Largest resident kernels of the presets smoke and laptop, whose data differ twentyfold in size.
START_MB = {
    "01_reference": 600,
    "01_dataset": 350,
    "03_train": 520,
    "03_train_thinned": 520,
    "04_reconstruct": 600,
    "05_compare": 420,
    "06_summary": 250,
}
START_MB_ELSE = 200
BYTES_PER_PIXEL = {"01_dataset": 10, "02_overlap": 10, "03_train": 20, "03_train_thinned": 80}
BYTES_PER_PIXEL_ELSE = 65
BYTES_PER_BATCH_PIXEL = 2000
SOLVED = ("01_reference", "03_train_thinned", "04_reconstruct")
BYTES_OF_A_MODE = 8  # of a pixel of a shifted probe
STORED_BYTES = 2**30  # of shifted probes, at most
MEMORY_MARGIN = 2.0
ENGINE_MB = 1000  # beside the kernel: the job itself and the engine's two processes on the node


class JobResources(Frozen):
    """What a job may use; a scheduler ends it beyond that."""

    threads: int = Field(default=DEFAULT_NEED["threads"], ge=1)
    mem_mb: int = Field(default=DEFAULT_NEED["mem_mb"], ge=1)
    runtime_min: int = Field(default=DEFAULT_NEED["runtime_min"], ge=1)
    gpus: int = Field(default=DEFAULT_NEED["gpus"], ge=0)


def resources_of(
    design: StudyDesign,
    sizes: Sizes,
    jobs: Sequence[PlannedJob],
    costs_s: Mapping[str, float],
    modes: int = 1,
) -> dict[str, JobResources]:
    """Return what each job asks for, by name: a multiple of what it is expected to need.

    Parameters
    ----------
    design
        The design.
    sizes
        (patterns, groups) of each (view, split).
    jobs
        From :func:`study_lib.runs.plan.plan_jobs` with the same design.
    costs_s
        From :func:`job_costs` with the same jobs.
    modes
        Of the probe.
    """
    return {
        job.name: JobResources(
            mem_mb=_memory_mb(design, sizes, job, modes),
            runtime_min=START_MIN
            + math.ceil(costs_s[job.name] / 60 * COST_MARGIN.get(job.notebook, COST_MARGIN_ELSE)),
        )
        for job in jobs
    }


def _memory_mb(design: StudyDesign, sizes: Sizes, job: PlannedJob, modes: int) -> int:
    """Return the memory that a job asks for, in steps of 500 MB."""
    expected = expected_mb(design, sizes, job, modes)
    return 500 * math.ceil((ENGINE_MB + MEMORY_MARGIN * expected) / 500)


def expected_mb(design: StudyDesign, sizes: Sizes, job: PlannedJob, modes: int = 1) -> float:
    """Return the memory of a job's kernel; every pattern of its view may be held.

    ``sizes`` has (patterns, groups) of each (view, split). Of further ``modes`` the solver keeps
    a shifted probe for every pattern, up to its ``stored_bytes``.
    """
    pixels = design.patch_size_px**2
    view = job.parameters.get("view")
    names = [str(view)] if view else [one.name for one in design.views]
    patterns = max(sum(sizes[name, split][0] for split in SPLITS) for name in names)
    held = 0.0
    if job.notebook not in ("00_design", "06_summary"):
        held = BYTES_PER_PIXEL.get(job.notebook, BYTES_PER_PIXEL_ELSE) * pixels * patterns
    if design.is_measured and job.notebook in ("01_reference", "01_dataset"):
        held = BYTES_PER_PIXEL_ELSE * pixels * patterns * BESIDE_SPLITS
    if job.notebook in SOLVED:
        shown = patterns * (BESIDE_SPLITS if job.notebook == "01_reference" else 1.0)
        held += min((modes - 1) * BYTES_OF_A_MODE * pixels * shown, STORED_BYTES)
    training = design.training
    if job.notebook == "03_train" and training is not None:
        shown = training.batch_size * design.view(str(view)).gridsize ** 2 * pixels
        held += BYTES_PER_BATCH_PIXEL * training.filters_scale * shown
    return START_MB.get(job.notebook, START_MB_ELSE) + held / 2**20


def write_resources(run_folder: Path, resources: Mapping[str, Mapping[str, int]]) -> None:
    """Write what the jobs of a run ask for, where the workflow reads it and a user may edit it."""
    write_json(run_folder / RESOURCES_FILE, resources)


def read_resources(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, JobResources]:
    """Return what each job of a run asks for, by name; the defaults where it is not written.

    Raises
    ------
    InputError
        If the file cannot be read, or a value in it is wrong; it names file, job and value.
    """
    path = run_folder / RESOURCES_FILE
    content = read_json(path) if path.is_file() else {}
    return {job.name: _resources_in(content, job.name, path) for job in jobs}


def _resources_in(content: Any, name: str, path: Path) -> JobResources:
    remedy = f"correct {path} or remove it, `study run` writes it again"
    asked = content.get(name, {}) if isinstance(content, dict) else content
    if not isinstance(asked, dict):
        raise InputError(f"{path}: {name}: found {asked!r}, no table of resources; {remedy}")
    try:
        return JobResources.model_validate(asked)
    except ValidationError as error:
        faults = describe_faults(error, f"{path}: {name}", JobResources)
        raise InputError(f"{faults}; {remedy}") from None
