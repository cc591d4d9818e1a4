"""Phase E (03_train_thinned): from a view's patterns to networks that thinned counts taught."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from study_lib.arm_names import SELF_TAUGHT_LABEL, THINNING_NET_LABEL
from study_lib.design.methods import ARMS_ALONE, ThinnedDesign
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.files import read_text, sha256_of, write_csv, write_json, write_text
from study_lib.networks.checkpoints import CHECKPOINTS, remove_checkpoints
from study_lib.networks.thinned.ensemble import (
    ENSEMBLE,
    ThinnedEnsemble,
    load_ensemble,
    reconstruct_thinned,
    save_ensemble,
)
from study_lib.networks.thinned.training import DEVICE, ThinnedRecord
from study_lib.networks.thinned.training import train_thinned as train_networks
from study_lib.networks.thinned.trust import SURE
from study_lib.phases.conditions import TAUGHT_PHASE, Condition
from study_lib.phases.reconstruct import TAKEN
from study_lib.phases.records import Computed, Work, computed_before, performed, work_of

LABELS = {"train": THINNING_NET_LABEL, "test": SELF_TAUGHT_LABEL}  # by the split that teaches
CHOICE = "thinned.json"
HISTORY = "history.csv"
LINES_PRINTED = 20
KEPT_SCORES = ("phase_ssim", "phase_ms_ssim", "phase_psnr_db", "registration")


def thinned_design_of(design: StudyDesign) -> ThinnedDesign:
    """Return the numbers behind the network.

    Raises
    ------
    InputError
        If the design has none.
    """
    if design.thinned is None:
        raise InputError(
            "thinned is null in this design, so it has no thinning network; set its fields as in "
            "parameters/presets/laptop.yaml"
        )
    return design.thinned


def train_thinned(
    condition: Condition, *, taught_by: str = "train", dry_run: bool = False
) -> dict[str, Any]:
    """Train on a split of a dose and view, or go on; write bundle, choices and record.

    Parameters
    ----------
    condition
        Its split does not matter.
    taught_by
        The split whose counts teach: ``test`` for the self-taught network, which is applied to the
        very patterns that it has learned from. No truth is used either way.
    dry_run
        Whether to return what would be done and write nothing.

    Returns
    -------
    dict
        Choices with their evidence, trust, cost, and scores of the test split; plain values.

    Raises
    ------
    InputError
        If the design has no such network, or a file is missing, broken or holds too few patterns.
    StudyError
        If the loss is no longer a number.

    References
    ----------
    Learning from noisy targets: Lehtinen et al., ICML 2018, arXiv:1803.04189

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> results = study.train_thinned(condition)  # doctest: +ELLIPSIS
    choose 1/1
    thin 1/2
    thin 2/2
    train 1/8 loss ... times the base's
    ...
    train 8/8 loss ... times the base's
    >>> results["members"], sorted(results["trust"])
    (2, ['blocks', 'gain_nats', 'given', 'standard_error_nats'])

    Scores of the test split, of the base and of the network as if it were trusted:

    >>> sorted(results["test"])
    ['base', 'network']
    """
    thinned = thinned_design_of(condition.design)
    teacher, test = (condition.of(split) for split in (taught_by, "test"))
    for one in (teacher, test):
        one.require_data()
    seed = condition.design.noise_seeds.training
    work = work_of(
        condition,
        TAUGHT_PHASE[teacher.split],
        parameters={
            "view": condition.view.name,
            "split": taught_by,
            "seed": seed,
            **thinned.model_dump(mode="json", exclude=set(ARMS_ALONE)),
        },
        seeds={"training": seed},
        inputs=list(dict.fromkeys((teacher.file, test.file))),
    )
    if dry_run:
        return work.parameters | {"dry_run": True}
    with performed(work, "train.log", f"{condition.training_label} {LABELS[taught_by]}"):
        work.report_device(str(DEVICE))

        def progress(what: str, done: int, total: int, loss: float) -> None:
            values = {"loss": loss} if np.isfinite(loss) else {}
            text = f"{what} {done}/{total}" + (
                f" loss {loss:.3f} times the base's" if values else ""
            )
            work.step(what, done, total, text, "step", LINES_PRINTED, log_all=False, **values)

        earlier = computed_before(
            condition,
            TAUGHT_PHASE[taught_by],
            work.parameters,
            splits=(teacher.split, test.split),
        )
        if earlier:
            _take(work, earlier, work.sha256_of_input(teacher.file))
            return work.results
        ensemble, records = train_networks(
            teacher.measurement(),
            thinned,
            seed=seed,
            checkpoints=work.folder / CHECKPOINTS,
            progress=progress,
            warn=work.log.warn,
        )
        ensemble = replace(ensemble, measurement_sha256=work.sha256_of_input(teacher.file))
        bundle = work.folder / ENSEMBLE
        save_ensemble(bundle, ensemble)
        write_csv(work.folder / HISTORY, [asdict(one) for one in records])
        work.results |= _results(ensemble, records, test) | {"bundle_sha256": sha256_of(bundle)}
        write_json(work.folder / CHOICE, work.results)
        work.outputs += [bundle, work.folder / CHOICE, work.folder / HISTORY]
    remove_checkpoints(work.folder / CHECKPOINTS)
    return work.results


def _take(work: Work, earlier: Computed, measurement_sha256: str) -> None:
    """Write what a view with the same patterns taught, as what this one did."""
    work.log.line(f"the same patterns as view {earlier.view}: its network is taken")
    work.add_inputs(earlier.folder / name for name in (ENSEMBLE, CHOICE, HISTORY))
    ensemble = load_ensemble(earlier.folder / ENSEMBLE)
    bundle = work.folder / ENSEMBLE
    save_ensemble(bundle, replace(ensemble, measurement_sha256=measurement_sha256))
    write_text(work.folder / HISTORY, read_text(earlier.folder / HISTORY))
    work.results |= earlier.results
    work.results |= {"bundle_sha256": sha256_of(bundle), TAKEN: earlier.view}
    write_json(work.folder / CHOICE, work.results)
    work.outputs += [bundle, work.folder / CHOICE, work.folder / HISTORY]


def _results(
    ensemble: ThinnedEnsemble, records: list[ThinnedRecord], test: Condition
) -> dict[str, Any]:
    """Return what the record keeps: choices with their evidence, trust, cost, and the test half.

    There, base and network both, as if it were trusted: the comparison decides that.
    """
    trust = ensemble.trust
    found = reconstruct_thinned(ensemble, test.measurement(), trust=SURE)

    def scores_of(object_: np.ndarray) -> dict[str, Any]:
        scores, _ = test.score(object_)
        return {name: scores[name] for name in KEPT_SCORES}

    return {
        "members": len(ensemble.members),
        "precision": "bfloat16" if ensemble.half_precision else "float32",
        "parameters": sum(weight.numel() for weight in ensemble.members[0].parameters()),
        "choices": asdict(ensemble.choices),
        "base": ensemble.choices.base,
        "smoothing": asdict(ensemble.smoothing),
        "trust": asdict(trust) | {"given": trust.given},
        "validation_gain_nats": trust.gain_nats,
        "final_loss": records[-1].loss,
        "training_cpu_s": ensemble.training_cpu_s,
        "test": {"base": scores_of(found.base), "network": scores_of(found.object_)},
    }
