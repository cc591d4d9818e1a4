"""Runs in cdtools' own environment: the ring correlation and thresholds of two images of ours."""

import sys
from pathlib import Path

import numpy as np
from cdtools.tools.analysis import calc_frc


def main(folder):
    """Correlate on rings one frequency sample wide; at half a bit and at one bit."""
    images = np.load(folder / "images.npz")
    side = len(images["first"])
    found = {}
    for name, snr in (("half_bit", np.sqrt(2) - 1), ("one_bit", 1.0)):  # of both images together
        frequency, correlation, threshold = calc_frc(
            images["first"], images["second"], np.eye(2), nbins=side // 2, snr=snr
        )
        found |= {"frequency": frequency, "correlation": correlation.real, name: threshold}
    np.savez(folder / "correlated.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
