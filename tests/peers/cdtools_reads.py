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


def predicted_from(path):
    """Return the data set in a CXI file, where its patches are, and the patterns it predicts."""
    dataset = Ptycho2DDataset.from_cxi(path)
    with h5py.File(path) as file:
        modes = torch.as_tensor(file["entry_1/image_1/data"][0])
        object_ = torch.as_tensor(file["entry_1/image_2/data"][0])
    geometry = dataset.detector_geometry
    basis = exit_wave_geometry(
        torch.as_tensor(geometry["basis"]).double(),
        dataset.patterns.shape[-2:],
        float(dataset.wavelength),
        float(geometry["distance"]),
    )
    vectors = translations_to_pixel(basis, dataset.translations.double())
    middle = (torch.tensor(object_.shape) - torch.tensor(modes.shape[1:])) / 2
    waves = ptycho_2D_round(modes, object_, vectors + middle, multiple_modes=True)
    return dataset, vectors, (far_field(waves).abs() ** 2).sum(dim=-3)


def main(folder):
    """Read the CXI files we wrote; predict their patterns; write one again."""
    dataset, vectors, predicted = predicted_from(folder / "scan.cxi")
    of_modes, _, predicted_of_modes = predicted_from(folder / "modes.cxi")
    geometry = dataset.detector_geometry
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
        modes_predicted=predicted_of_modes,
        modes_patterns=of_modes.patterns,
    )
    dataset.to_cxi(folder / "from_cdtools.cxi")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
