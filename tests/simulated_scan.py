"""A small scan with a known object, by a model of its own, and files of it as beamlines write them.

Nothing of the library is used: probes are analytic, patches are cut at whole pixels.
"""

from pathlib import Path

import h5py
import numpy as np

SIDE = 32
ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 2.0, 75e-6
PIXEL_M = 1.239841984332003e-6 / ENERGY_EV * DISTANCE_M / (SIDE * DETECTOR_PIXEL_M)
JOULE_PER_EV = 1.602176634e-19
PHOTONS = 2e5


def made_object(shape=(74, 82)):
    """A transmission of soft discs that no mirror image or rotation maps on itself."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    phase_rad, amplitude = np.zeros(shape), np.ones(shape)
    for _ in range(40):
        at = random.uniform(0, shape)
        radii = random.uniform(3, 8, 2)
        inside = 3 * (((y - at[0]) / radii[0]) ** 2 + ((x - at[1]) / radii[1]) ** 2 - 1)
        disc = 1 / (1 + np.exp(np.clip(inside, -50, 50)))
        phase_rad += random.uniform(0.1, 0.5) * disc
        amplitude -= random.uniform(0, 0.08) * disc
    return np.clip(amplitude, 0.3, 1) * np.exp(1j * phase_rad)


def made_probe(side=SIDE):
    """A lopsided wave in the middle of its window."""
    y, x = np.mgrid[:side, :side] - side // 2
    envelope = np.exp(-(y**2 + 1.6 * x**2) / 50) * (1 + 0.03 * y * np.exp(-np.abs(y) / 8))
    wave = envelope * np.exp(1j * (0.02 * y**2 + 0.016 * x**2 + 0.006 * x * y))
    return wave * np.sqrt(PHOTONS / (np.abs(wave) ** 2).sum())


def far_field(waves):
    """The centred unitary Fourier transform of the last two axes."""
    axes = (-2, -1)
    inner = np.fft.fft2(np.fft.ifftshift(waves, axes=axes), norm="ortho")
    return np.fft.fftshift(inner, axes=axes)


class Scan:
    """Object, probe, positions and counts of one simulated scan."""

    def __init__(self, probe=None, side=SIDE, step=4, background=0.0):
        self.side = side
        self.object_ = made_object()
        self.probe = made_probe(side) if probe is None else probe
        rows, columns = (range(side // 2 + 1, length - side // 2 - 1, step) for length in (74, 82))
        grid = np.array([(y, x) for y in rows for x in columns])
        jitter = np.random.default_rng(5).integers(-1, 2, grid.shape)
        self.positions = np.clip(
            grid + jitter, side // 2, np.array([74, 82]) - side // 2 - side % 2
        )
        self.rates = self.expected(self.probe, self.object_, self.positions)
        self.counts = np.random.default_rng(9).poisson(self.rates + background).astype(np.uint32)

    def expected(self, probe, object_, positions):
        """Counts that a model predicts, summed over modes (modes, n, n)."""
        side = probe.shape[-1]
        modes = probe.reshape(-1, side, side)
        corners = np.rint(positions).astype(int) - side // 2
        patches = np.stack([object_[y : y + side, x : x + side] for y, x in corners])
        return (np.abs(far_field(modes[:, None] * patches)) ** 2).sum(axis=0)

    @property
    def metres(self):
        """Translations (x, y, z) as CXI has them."""
        y, x = self.positions.T * PIXEL_M
        return np.stack([x, y, 0 * x], axis=1)

    @property
    def centred_metres(self):
        """(y, x) from the middle of the object, as a product has them."""
        middles = (np.array(self.object_.shape) - 1) / 2
        return (self.positions - self.side // 2 + (self.side - 1) / 2 - middles) * PIXEL_M

    def write_cxi(self, path: Path, entry="entry_1", counts=None, images=True, **extra):
        """Write an entry; ``extra`` names data sets of detector_1, None leaves one out."""
        pixel_m = DETECTOR_PIXEL_M
        with h5py.File(path, "a") as file:
            contents = {
                "data": self.counts if counts is None else counts,
                "distance": DISTANCE_M,
                "x_pixel_size": pixel_m,
                "y_pixel_size": pixel_m,
                "basis_vectors": np.array([[0, -pixel_m], [-pixel_m, 0], [0, 0]]),
                "../source_1/energy": ENERGY_EV * JOULE_PER_EV,
            } | extra
            detector = file.create_group(f"{entry}/instrument_1/detector_1")
            for name, values in contents.items():
                if values is not None:
                    place = f"{entry}/instrument_1/{name[3:]}" if name[:3] == "../" else name
                    (file if name[:3] == "../" else detector)[place] = values
            metres = self.metres
            if images:
                metres = np.stack([*self.centred_metres.T[::-1], 0 * metres[:, 0]], axis=1)
                file[f"{entry}/image_1/data"] = self.probe.reshape(1, -1, self.side, self.side)
                file[f"{entry}/image_2/data"] = self.object_[None]
            file[f"{entry}/sample_1/geometry_1/translation"] = metres
        return path

    def write_pair(self, folder: Path, name="scan", probe=None, images=True):
        """Write the pair of files of pty-chi; its probe is ours over N."""
        with h5py.File(folder / f"{name}_para.hdf5", "w") as file:
            vectors = self.positions * PIXEL_M
            if images:
                start = [round(n / 2) - 0.5 - (self.side - 1) / 2 for n in self.object_.shape]
                vectors = (self.positions - self.side // 2 - start) * PIXEL_M
                file["object"] = self.object_[None].astype(np.complex64)
                for key in ("pixel_height_m", "pixel_width_m"):
                    file["object"].attrs[key] = PIXEL_M
                file["probe"] = ((self.probe if probe is None else probe) / self.side).astype("c8")
            file["probe_position_y_m"], file["probe_position_x_m"] = vectors.T
        with h5py.File(folder / f"{name}_dp.hdf5", "w") as file:
            file["dp"] = self.counts
        return folder / f"{name}_dp.hdf5"

    def write_ptyd(self, path: Path, weights=None):
        """Write prepared data of ptypy, in one chunk."""
        with h5py.File(path, "w") as file:
            file["meta/energy"], file["meta/distance"] = ENERGY_EV / 1000, DISTANCE_M
            file["meta/psize"], file["meta/shape"] = DETECTOR_PIXEL_M, [self.side, self.side]
            chunk = file.create_group("chunks/0")
            chunk["data"], chunk["indices"] = self.counts, np.arange(len(self.counts))
            chunk["positions"] = self.positions * PIXEL_M
            if weights is not None:
                chunk["weights"] = weights
        return path

    def r_of(self, path: Path):
        """The R-factor of what a data set holds, by the model of this module."""
        with np.load(path) as found:
            arrays = dict(found)
        positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
        shift = np.rint(positions[0]) - positions[0]
        rates = self.expected(arrays["probeGuess"], arrays["objectGuess"], positions + shift)
        rates = rates + arrays.get("background", 0)
        measured = arrays["diffraction"]
        good = np.broadcast_to(~arrays.get("bad_pixels", np.zeros((1, 1), bool)), measured.shape)
        return np.abs(measured - np.sqrt(rates))[good].sum() / measured[good].sum()

    def noise_r(self, scale=1.0):
        """The R-factor of the truth: photon noise alone."""
        measured = np.sqrt(self.counts)
        return np.abs(measured - np.sqrt(self.rates * scale)).sum() / measured.sum()
