"""Whether trainings end as well as they did before: final losses of two manifests side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_lib.errors import InputError
from study_lib.files import manifest_jobs


@dataclass(frozen=True)
class LossChange:
    """One training in two manifests; passed if it is at most a share worse than the reference."""

    job: str
    reference: float
    candidate: float
    passed: bool

    def __str__(self) -> str:
        """Return the change in one line."""
        change = self.candidate / self.reference - 1
        verdict = "ok" if self.passed else "WORSE"
        return (
            f"{self.job}: final loss {self.reference:.6f} -> {self.candidate:.6f} "
            f"({change:+.1%}) {verdict}"
        )


def compare_losses(
    reference: Path,
    candidate: Path,
    *,
    tolerance: float,
    dose: float | None = None,
    view: str | None = None,
    gridsize: int | None = None,
) -> list[LossChange]:
    """Return how the final loss of every training that both manifests hold has changed.

    Parameters
    ----------
    reference, candidate
        Two files ``training_manifest.json``.
    tolerance
        The candidate may be worse by this share of the reference.
    dose, view, gridsize
        Only these trainings; default: all.

    Raises
    ------
    InputError
        If a manifest is missing, broken or incomplete, the tolerance is negative, a training of the
        reference that was asked for is missing or failed in the candidate, or none matches.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance:g}: it must be 0 or more; 0.25 allows 25 %")
    wanted = {"dose": dose, "view": view, "gridsize": gridsize}
    before, after = (
        _losses(path, {name: value for name, value in wanted.items() if value is not None})
        for path in (reference, candidate)
    )
    if not before:
        raise InputError(
            f"{reference}: no finished training matches {wanted}; it holds "
            f"{', '.join(sorted(_losses(reference, {}))) or 'none'}"
        )
    missing = sorted(before.keys() - after.keys())
    if missing:
        raise InputError(f"{candidate}: no finished training {', '.join(missing)}; train it first")
    return [
        LossChange(job, loss, after[job], after[job] <= loss * (1 + tolerance))
        for job, loss in sorted(before.items())
    ]


def _losses(manifest: Path, wanted: Mapping[str, Any]) -> dict[str, float]:
    losses = {}
    for key, job in manifest_jobs(manifest).items():
        try:
            chosen = [job["parameters"].get(name) == value for name, value in wanted.items()]
            if job["status"] == "done" and all(chosen):
                losses[key] = float(job["results"]["final_loss"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{manifest}: {key}: its record lacks status, parameters or final loss; train it "
                "again with `study train`, or remove it from the manifest"
            ) from None
    return losses
