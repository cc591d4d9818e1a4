"""Runs in Ptychodus' own environment: read our files with its readers, write its files for ours."""

import sys
from pathlib import Path

import numpy as np
from ptychodus.api.interpolate import BarycentricArrayInterpolator
from ptychodus.api.io import (
    load_diffraction_data,
    load_product,
    save_diffraction_data,
    save_product,
    save_ptychopinn_training_data,
)
from ptychodus.api.reconstruct import ReconstructInput
from ptychodus.plugins.cxi_file import (
    CXIDiffractionFileReader,
    CXIDiffractionFileWriter,
    CXIProductFileIO,
)
from ptychodus.plugins.slac_npz_file import SLACDiffractionFileReader, SLACProductFileReader


def contents_of(product, prefix):
    """Return what a product holds."""
    return {
        f"{prefix}_probe": product.probes.get_array(),
        f"{prefix}_object": product.object_.get_array(),
        f"{prefix}_x_m": product.probe_positions.get_coordinates_x_m(),
        f"{prefix}_y_m": product.probe_positions.get_coordinates_y_m(),
        f"{prefix}_indexes": product.probe_positions.get_indexes(),
        f"{prefix}_energy_ev": product.metadata.photon_energy_eV,
        f"{prefix}_distance_m": product.metadata.detector_distance_m,
    }


def patterns_predicted(product):
    """Return the patterns that follow from where Ptychodus itself sees the patches."""
    geometry = product.object_.get_geometry()
    object_, modes = product.object_.get_array()[0], product.probes.get_array()[0]
    patches = BarycentricArrayInterpolator(object_)
    predicted = []
    for position in product.probe_positions:
        place = geometry.map_coordinates_probe_to_object(position)
        x_px, y_px = round(2 * place.x_px) / 2, round(2 * place.y_px) / 2
        waves = modes * patches.get_patch(x_px, y_px, *modes.shape[:0:-1])
        axes = (-2, -1)
        inner = np.fft.fft2(np.fft.ifftshift(waves, axes=axes), norm="ortho")
        predicted.append((np.abs(np.fft.fftshift(inner, axes=axes)) ** 2).sum(axis=0))
    return np.array(predicted)


def patterns_in(dataset):
    """Return the patterns of a diffraction data set."""
    return np.concatenate([array.get_patterns() for array in dataset])


def main(folder):
    """Read every file we wrote; write what Ptychodus makes of it."""
    product = load_product(folder / "scan.h5")
    measured = load_diffraction_data(folder / "scan_diffraction.h5")
    cxi = CXIDiffractionFileReader().read(folder / "scan.cxi")
    cxi_product = CXIProductFileIO().read(folder / "scan.cxi")
    slac = SLACDiffractionFileReader().read(folder / "slac.npz")
    slac_product = SLACProductFileReader().read(folder / "slac.npz")
    try:
        SLACDiffractionFileReader().read(folder / "ptychopinn.npz")
        refusal = ""
    except KeyError as error:
        refusal = str(error)
    metadata = cxi.get_metadata()
    of_modes = load_product(folder / "modes.h5")
    cxi_of_modes = CXIProductFileIO().read(folder / "modes.cxi")
    np.savez(
        folder / "ptychodus.npz",
        **contents_of(product, "product"),
        **contents_of(cxi_product, "cxi"),
        **contents_of(slac_product, "slac"),
        product_predicted=patterns_predicted(product),
        cxi_predicted=patterns_predicted(cxi_product),
        patterns=measured.get_patterns(),
        patterns_indexes=measured.get_indexes(),
        bad_pixels=measured.get_bad_pixels(),
        cxi_patterns=patterns_in(cxi),
        cxi_bad_pixels=cxi.get_bad_pixels(),
        cxi_pixel_m=metadata.detector_pixel_geometry.width_m,
        slac_patterns=patterns_in(slac),
        refusal=refusal,
        modes_probe=of_modes.probes.get_array(),
        modes_predicted=patterns_predicted(of_modes),
        modes_patterns=load_diffraction_data(folder / "modes_diffraction.h5").get_patterns(),
        cxi_modes_probe=cxi_of_modes.probes.get_array(),
        cxi_modes_predicted=patterns_predicted(cxi_of_modes),
    )
    save_product(folder / "theirs.h5", product)
    save_diffraction_data(folder / "theirs_diffraction.h5", measured)
    CXIDiffractionFileWriter().write(folder / "theirs.cxi", cxi)
    CXIProductFileIO().write(folder / "theirs_product.cxi", cxi_product)
    inputs = ReconstructInput(measured.get_patterns(), measured.get_bad_pixels(), product)
    save_ptychopinn_training_data(folder / "theirs.npz", inputs, inpaint_bad_pixels=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
