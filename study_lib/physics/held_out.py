"""How well an object predicts counts that no arm has seen: a second draw of the same experiment."""

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.physics.forward import corners_of, expected_counts, patches_at, probes_at
from study_lib.physics.likelihood import half_deviance

MOST_PATTERNS = 1000
CHUNK = 128


class HeldOutCounts:
    """Fresh Poisson counts from the true object, at the view's own positions.

    At most `MOST_PATTERNS` positions, evenly spread over the scan order.

    Parameters
    ----------
    truth : (oy, ox)
        The true object.
    probe : (n, n)
        In sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    random
        Draws the counts.
    background
        Photons per detector pixel that do not come from the object.
    bad_pixels : (n, n), optional
        Detector pixels without a count.
    """

    def __init__(
        self,
        *,
        truth: Complex[np.ndarray, "oy ox"],
        probe: Complex[np.ndarray, "n n"],
        positions_px: Float[np.ndarray, "scan 2"],
        random: np.random.Generator,
        background: float = 0.0,
        bad_pixels: Bool[np.ndarray, "n n"] | None = None,
    ) -> None:
        step = -(-len(positions_px) // MOST_PATTERNS)
        self._positions = torch.from_numpy(positions_px[::step]).to(torch.float64)
        self._probe = torch.from_numpy(probe).to(torch.complex64)
        self._background = background
        self._bad = None if bad_pixels is None else torch.from_numpy(bad_pixels)
        rates = self._expected(truth)
        self._counts = [
            torch.from_numpy(random.poisson(part.double().numpy()).astype(np.float32))
            for part in rates
        ]
        self._of_truth = self._deviance(rates)

    def excess_nats(self, object_: Complex[np.ndarray, "oy ox"]) -> float:
        """Return the negative log-likelihood per pattern above that of the true object.

        The object as the arm gave it: a ramp or a scale that alignment would remove does change
        the counts. 0 for the truth; on average the Kullback-Leibler divergence of the predicted
        counts, which is never negative.
        """
        return self._deviance(self._expected(object_)) - self._of_truth

    def _expected(self, object_: Complex[np.ndarray, "oy ox"]) -> list[Tensor]:
        grid, side = torch.from_numpy(object_).to(torch.complex64), self._probe.shape[-1]
        return [
            expected_counts(
                probes_at(self._probe, part) * patches_at(grid, corners_of(part, side), side)
            )
            + self._background
            for part in self._positions.split(CHUNK)
        ]

    def _deviance(self, expected: list[Tensor]) -> float:
        pixels = self._probe.numel() if self._bad is None else int((~self._bad).sum())
        total = sum(
            float(half_deviance(rates, counts, self._bad)) * len(counts)
            for rates, counts in zip(expected, self._counts, strict=True)
        )
        return pixels * total / len(self._positions)
