"""Roughly what each job of a plan costs, for telling how long a run will take."""

from collections.abc import Mapping, Sequence

from study_lib.design.models import StudyDesign
from study_lib.runs.plan import PlannedJob

# Processor seconds measured with the laptop preset on one core; good to a factor of two elsewhere.
NOTEBOOK_S = 8.0
GROUP_S_PER_PIXEL = 3.0e-6
PATTERN_S_PER_PIXEL = 1.7e-7
ENGINE_S_PER_PIXEL = 2.1e-7  # LSQML of pty-chi
SOLVER_S_PER_PIXEL = 2.4e-8
LIMIT_S_PER_PIXEL = 6.5e-7  # of one solve
THINNING_S_PER_PIXEL = 1.0e-6  # of one thinning, solver and denoisers included
THINNINGS_TO_CHOOSE = 4  # that the choices before the network cost as much as
STEP_S_PER_PIXEL = 2.0e-7  # of a pattern that a step explains, the network's share included

Sizes = Mapping[tuple[str, str], tuple[int, int]]


def job_costs(design: StudyDesign, sizes: Sizes, jobs: Sequence[PlannedJob]) -> dict[str, float]:
    """Return rough processor seconds of every job by name.

    Parameters
    ----------
    design
        The design.
    sizes
        (patterns, groups) of each (view, split).
    jobs
        From :func:`study_lib.runs.plan.plan_jobs` with the same design.
    """
    return {job.name: NOTEBOOK_S + _work_s(design, sizes, job) for job in jobs}


def _work_s(design: StudyDesign, sizes: Sizes, job: PlannedJob) -> float:
    """Return what a job does beside starting; convolutions grow with the width squared."""
    pixels = design.patch_size_px**2
    view, split = job.parameters.get("view"), job.parameters.get("split", "train")
    if job.notebook == "03_train":
        training = design.training
        groups = sizes[str(view), "train"][1]
        shown = max(training.epochs * groups, training.steps_min * training.batch_size)
        per_group_s = GROUP_S_PER_PIXEL * training.filters_scale**2
        per_group_s += PATTERN_S_PER_PIXEL * design.view(str(view)).gridsize ** 2
        return per_group_s * pixels * shown
    patterns = sizes[str(view), str(split)][0] if view else 0
    if job.notebook == "03_train_thinned" and design.thinned is not None:
        thinned = design.thinned
        shown = thinned.members * thinned.steps * min(thinned.patterns_per_step, patterns)
        thinnings = (thinned.sets + THINNINGS_TO_CHOOSE) * patterns
        thinnings += sizes[str(view), "test"][0]  # the object that is scored at the end
        return pixels * (THINNING_S_PER_PIXEL * thinnings + STEP_S_PER_PIXEL * shown)
    if job.notebook == "04_reconstruct":
        iterative = design.iterative
        per_pattern_s = sum(
            SOLVER_S_PER_PIXEL * iterative.solver.epochs
            if name == "solver"
            else ENGINE_S_PER_PIXEL * iterative.epochs
            for name in iterative.algorithms
        )
        if iterative.denoised and split == "train":  # once more, to choose the denoiser
            per_pattern_s *= 2
        return per_pattern_s * pixels * patterns
    if job.notebook == "05_compare":
        per_pattern_s = LIMIT_S_PER_PIXEL * design.metrics.photon_limit_solves
        if design.thinned is not None:  # its object, and those whose spread is shown
            per_pattern_s += THINNING_S_PER_PIXEL * (1 + design.thinned.thinnings)
        return per_pattern_s * pixels * patterns
    return 0.0
