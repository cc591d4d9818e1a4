"""Phase E (03_train): from the patterns of a view to a trained network and its record."""

from typing import Any

from study_lib.data.archive import metadata_of, open_npz
from study_lib.errors import InputError
from study_lib.networks.checkpoints import CHECKPOINTS, remove_checkpoints
from study_lib.networks.pinn.bundle import EpochRecord
from study_lib.networks.pinn.config import ANY_MACHINE, Machine, TrainingConfig, training_config
from study_lib.overlap.views import view_record_of
from study_lib.phases.backends import (
    Backend,
    NativeBackend,
    PtychoPinnBackend,
    TrainingRequest,
    TrainingResult,
)
from study_lib.phases.conditions import Condition
from study_lib.phases.records import performed, work_of

BACKENDS: dict[str, Backend] = {"native": NativeBackend(), "ptychopinn": PtychoPinnBackend()}


def execute_training_job(
    request: TrainingRequest, backend: Backend, settings: Any
) -> TrainingResult:
    """Validate and load the files of a condition and train for real.

    Parameters
    ----------
    request
        Condition, configuration, and what records every epoch.
    backend
        Who trains.
    settings
        The configuration as the backend has it, from its bridge.

    Raises
    ------
    InputError
        If a file breaks the data contract, or does not fit the configuration.
    """
    train, test = (request.condition.of(split).measurement() for split in ("train", "test"))
    return backend.train(settings, request, train, test)


def training_of(condition: Condition, machine: Machine = ANY_MACHINE) -> TrainingConfig:
    """Return every knob of the training of a condition, with the groups that its file has."""
    path = condition.of("train").file
    with open_npz(path) as archive:
        made = view_record_of(metadata_of(archive), str(path))
    return training_config(condition.design, condition.view.name, machine, view_record=made)


def train(
    condition: Condition,
    *,
    backend: str = "native",
    machine: Machine = ANY_MACHINE,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train on the train split of a dose and view, or go on with a training that was interrupted.

    Writes the network, its history, a log and a record. The configuration is bridged exactly once
    (CONFIG-001), before any loader of the backend runs.

    Parameters
    ----------
    condition
        Its split does not matter.
    backend
        A name in ``BACKENDS``.
    machine
        Device, threads, compilation.
    dry_run
        Whether to return what would be done, and write and configure nothing.

    Returns
    -------
    dict
        Losses, scores of the test split and the bundle's hash; plain values.

    Raises
    ------
    InputError
        If the backend does not exist or its package is missing, or a file is missing or broken.
    StudyError
        If the loss is no longer a number.

    References
    ----------
    Hoidn, Mishra and Mehta, Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> plan = study.train(condition, dry_run=True)
    >>> plan["view"], plan["gridsize"], plan["epochs"]
    ('dense', 2, 1)
    >>> results = study.train(condition)  # doctest: +ELLIPSIS
    epoch 1/1 poisson loss per pixel ... patterns/s
    >>> results["epochs"], "phase_ssim" in results["test"]
    (1, True)
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: choose one of {', '.join(sorted(BACKENDS))}")
    for split in ("train", "test"):
        condition.of(split).require_data()
    config = training_of(condition, machine)
    chosen = BACKENDS[backend]
    work = work_of(
        condition,
        "train",
        parameters={
            "view": condition.view.name,
            "gridsize": condition.gridsize,
            "backend": backend,
            **config.model_dump(mode="json"),
        },
        seeds={"training": config.seed},
        inputs=[condition.of(split).file for split in ("train", "test")],
    )
    if dry_run:
        return work.parameters | {"dry_run": True}
    with performed(work, "train.log", condition.training_label):

        def epoch(done: EpochRecord, epochs: int) -> None:
            text = (
                f"epoch {done.epoch}/{epochs} {config.loss} loss per pixel {done.train:.6f}, "
                f"validation {done.validation:.6f}, learning rate {done.learning_rate:g}, "
                f"{done.patterns_per_s:.1f} patterns/s"
            )
            work.step("train", done.epoch, epochs, text, "epoch", loss=done.train)

        with chosen.bridged(config, condition) as settings:
            request = TrainingRequest(condition, config, work, epoch)
            result = execute_training_job(request, chosen, settings)
        work.results |= result.values
        work.outputs += result.files
    remove_checkpoints(work.folder / CHECKPOINTS)
    return work.results
