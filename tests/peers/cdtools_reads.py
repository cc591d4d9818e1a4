"""Runs in cdtools' own environment: read our CXI file with its reader, write its file for ours."""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from cdtools.datasets import Ptycho2DDataset
from cdtools.tools.initializers import exit_wave_geometry
from cdtools.tools.interactions import ptycho_2D_round, translations_to_pixel
from cdtools.tools.propagators import far_field


def main(folder):
    """Read the CXI file we wrote; predict its patterns; write it again."""
    dataset = Ptycho2DDataset.from_cxi(folder / "scan.cxi")
    with h5py.File(folder / "scan.cxi") as file:
        probe = torch.as_tensor(file["entry_1/image_1/data"][0, 0])
        object_ = torch.as_tensor(file["entry_1/image_2/data"][0])
    geometry = dataset.detector_geometry
    basis = exit_wave_geometry(
        torch.as_tensor(geometry["basis"]).double(),
        dataset.patterns.shape[-2:],
        float(dataset.wavelength),
        float(geometry["distance"]),
    )
    vectors = translations_to_pixel(basis, dataset.translations.double())
    middle = (torch.tensor(object_.shape) - torch.tensor(probe.shape)) / 2
    predicted = far_field(ptycho_2D_round(probe, object_, vectors + middle)).abs() ** 2
    np.savez(
        folder / "cdtools.npz",
        patterns=dataset.patterns,
        mask=dataset.mask,
        translations_m=dataset.translations,
        wavelength_m=float(dataset.wavelength),
        distance_m=float(geometry["distance"]),
        corner_m=geometry["corner"],
        vectors_px=vectors,
        predicted=predicted,
    )
    dataset.to_cxi(folder / "from_cdtools.cxi")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
