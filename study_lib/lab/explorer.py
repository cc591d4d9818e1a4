"""A finished run to look around in: patterns, probe, aligned objects, cuts through them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.figure import Figure
from skimage.measure import profile_line

from study_lib.data.archive import read_npz
from study_lib.data.datasets import load_measurement, pattern_count
from study_lib.design.models import SPLITS
from study_lib.errors import InputError
from study_lib.figures import lessons as figures_explore
from study_lib.figures import reconstruction as figures_iterative
from study_lib.files import read_json
from study_lib.lab.sliders import Choice
from study_lib.phases.conditions import comparison_folder, view_path
from study_lib.physics.measurement import Measurement, counts_of
from study_lib.physics.probe import probe_diameter_px
from study_lib.runs.run import Run

KEPT = 4  # conditions in memory


@dataclass(frozen=True)
class Condition:
    """What a comparison left of one dose, view and split.

    ``objects`` (y, x) are the truth, first, and every arm aligned with it, zero where ``mask`` says
    that a pixel is not scored; their first pixel lies at ``origin_px`` (row, column) in the frame
    of the object, in which the positions of ``measurement`` are given. ``phase_ssim`` is the
    comparison's, by arm.
    """

    measurement: Measurement
    diameter_px: float
    origin_px: tuple[int, int]
    mask: Bool[np.ndarray, "y x"]
    objects: Mapping[str, Complex[np.ndarray, "y x"]]
    phase_ssim: Mapping[str, float]


class Explorer:
    """Figures of one run, each for whatever dose, view and split is asked for.

    Parameters
    ----------
    run
        The run; conditions that it has not compared yet are told as such.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.condition = lru_cache(maxsize=KEPT)(self._condition)

    def choices(self, dose: float, view: str, split: str) -> dict[str, Choice]:
        """Return what can be chosen of a run, with what is shown first."""
        design = self.run.design
        return {
            "dose": Choice(dose, options=design.doses),
            "view": Choice(view, options=tuple(one.name for one in design.views)),
            "split": Choice(split, options=SPLITS),
        }

    def pattern_choice(self, index: int) -> dict[str, Choice]:
        """Return the patterns of whatever view is chosen."""
        return {
            "index": Choice(
                index,
                highest=lambda dose, view, split: (
                    pattern_count(self._view_path(dose, view, split)) - 1
                ),
            )
        }

    def arm_choice(self, dose: float, view: str, split: str, arm: str) -> dict[str, Choice]:
        """Return the arms of a condition."""
        arms = tuple(name for name in self.condition(dose, view, split).objects if name != "truth")
        return {"arm": Choice(arm, options=arms)}

    def row_choice(self, dose: float, view: str, split: str, share: float) -> dict[str, Choice]:
        """Return the rows of a condition's crop; the first one shown lies at a share of them."""
        rows = len(self.condition(dose, view, split).mask)
        return {
            "row": Choice(
                int(share * (rows - 1)),
                highest=lambda dose, view, split: len(self.condition(dose, view, split).mask) - 1,
            )
        }

    def pattern(self, dose: float, view: str, split: str, index: int) -> Figure:
        """Show a pattern on a logarithmic scale, its place in the scan, and the probe."""
        found = self.condition(dose, view, split)
        index = min(index, len(found.measurement.scan_index) - 1)
        return figures_explore.pattern_and_place(
            counts_of(found.measurement.amplitudes[index]),
            found.measurement.positions_px - found.origin_px,
            index,
            found.objects["truth"],
            found.measurement.probe,
            found.diameter_px,
            title=f"pattern {found.measurement.scan_index[index]} of the scan, "
            f"{_said(dose, view, split)}",
        )

    def objects(self, dose: float, view: str, split: str, arm: str) -> Figure:
        """Show amplitude, phase and both in one of the truth and of an arm, on common scales."""
        found = self.condition(dose, view, split)
        truth, object_ = found.objects["truth"], self._object(found, arm)
        return figures_iterative.objects(
            {"truth": truth, arm: object_},
            title=f"{arm}, {_said(dose, view, split)}, phase SSIM {found.phase_ssim[arm]:.3f}",
        )

    def cut(self, dose: float, view: str, split: str, row: int) -> Figure:
        """Show the phase of the truth and of every arm along a row of the aligned objects."""
        found = self.condition(dose, view, split)
        rows, columns = found.mask.shape
        row = min(row, rows - 1)
        line = partial(phase_along, start_px=(float(row), 0.0), end_px=(float(row), columns - 1.0))
        return figures_explore.cuts(
            {name: line(object_) for name, object_ in found.objects.items()},
            found.objects["truth"],
            row,
            title=f"row {row + found.origin_px[0]} of the object, {_said(dose, view, split)}",
        )

    def _condition(self, dose: float, view: str, split: str) -> Condition:
        """Return one condition.

        Raises
        ------
        InputError
            If the design does not have it, or it was not compared yet.
        """
        design = self.run.design
        design.require_dose(dose)
        folder = comparison_folder(self.run.root("G"), dose, design.view(view).name, split)
        path = folder / "aligned.npz"
        if not path.is_file():
            raise InputError(f"{path}: no such file; run 05_compare for this condition first")
        measurement = load_measurement(self._view_path(dose, view, split))
        arrays, metadata = read_npz(path)
        mask = arrays["mask"]
        objects = {
            name: np.where(mask, array, 0)
            for name, array in arrays.items()
            if array.shape == mask.shape and np.iscomplexobj(array)
        }
        row, column = metadata["origin_px"]
        return Condition(
            measurement=measurement,
            diameter_px=probe_diameter_px(measurement.probe, design.probe_power_share),
            origin_px=(row, column),
            mask=mask,
            objects={"truth": objects.pop("truth"), **objects},
            phase_ssim={
                row["arm"]: row["phase_ssim"] for row in read_json(folder / "metrics.json")
            },
        )

    def _view_path(self, dose: float, view: str, split: str) -> Path:
        return view_path(self.run.root("C"), self.run.root("D"), dose, view, split)

    @staticmethod
    def _object(found: Condition, arm: str) -> Complex[np.ndarray, "y x"]:
        if arm not in found.objects:
            arms = ", ".join(name for name in found.objects if name != "truth")
            raise InputError(f"arm {arm!r}: this condition has {arms}; choose one")
        return found.objects[arm]


def phase_along(
    object_: Complex[np.ndarray, "y x"],
    start_px: tuple[float, float],
    end_px: tuple[float, float],
) -> Float[np.ndarray, " sample"]:
    """Return the phase along a straight line, a sample each pixel of its length.

    Real and imaginary part are interpolated, not the phase, which may jump by a turn between two
    pixels.

    Parameters
    ----------
    object_ : (y, x)
    start_px, end_px
        (row, column) of the first and of the last sample.

    Returns
    -------
    (sample,), in rad.
    """
    parts = [
        profile_line(part, start_px, end_px, order=1, mode="nearest")
        for part in (object_.real, object_.imag)
    ]
    phase: np.ndarray = np.angle(parts[0] + 1j * parts[1])
    return phase


def _said(dose: float, view: str, split: str) -> str:
    return f"{view}, {split}, {dose:g} photons per pattern"
