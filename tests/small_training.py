"""A small scene that trains within seconds, for the tests of everything about training."""

import hashlib
from dataclasses import replace

import numpy as np

from study_lib.design.methods import ThinnedDesign
from study_lib.design.presets import load_design
from study_lib.networks.pinn.bundle import TrainedNetwork
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.physics.measurement import Measurement

SIDE = 16
SHAPE = (40, 46)
HELD_OUT_SHARE = 0.2
SETTINGS = load_design("smoke").training.model_dump() | {
    "batch_size": 6,
    "filters_scale": 1,
    "steps_min": 0,
    "validation_share": HELD_OUT_SHARE,
    "precision": "float32",
    "gradient_clip_norm": None,
    "side_px": SIDE,
    "neighbor_count": 7,
    "n_groups": None,
    "device": "cpu",
    "threads": 1,
    "compile": False,
}
SMALL_THINNED = ThinnedDesign(
    members=2,
    sets=2,
    steps=12,
    patterns_per_step=16,
    learning_rate=2e-3,
    weight_decay=0.01,
    gradient_clip_norm=100.0,
    photon_shares=(0.5, 0.9),
    kept_positions=(1.0, 0.6),
    judged_share=0.8,
    validation_share=0.15,
    widths=(6, 8, 10),
    thinnings=3,
)


def true_object() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 3 + x / 7) + 0.4 * ((x > 18) & (y > 12) & (y < 12 + x / 2))
    return ((0.9 - 0.2 * (np.hypot(y - 22, x - 20) < 6)) * np.exp(1j * phase)).astype(np.complex64)


def cut(object_: np.ndarray, positions_px: np.ndarray) -> np.ndarray:
    corners = np.round(positions_px).astype(int) - SIDE // 2
    return np.array([object_[y : y + SIDE, x : x + SIDE] for y, x in corners])


def measurement_of(*, gridsize: int = 1, photons: float = 1e5, step_px: float = 4.0) -> Measurement:
    """Return Poisson counts of the true object at whole-pixel positions, numpy's FFT."""
    random = np.random.default_rng(17)
    rows, columns = np.arange(9, 31, step_px), np.arange(10, 37, step_px)
    positions = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    probe = np.exp(-(y**2 + (x - 1) ** 2) / 18 + 0.06j * (y**2 + x**2))
    probe *= np.sqrt(photons / (np.abs(probe) ** 2).sum())
    waves = probe * cut(true_object(), positions)
    detector = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    every = np.arange(len(positions))
    nearest = np.linalg.norm(positions[:, None] - positions, axis=-1).argsort(axis=1, kind="stable")
    return Measurement(
        amplitudes=np.sqrt(random.poisson(np.abs(detector) ** 2)).astype(np.float32),
        positions_px=positions.astype(np.float64),
        probe=probe.astype(np.complex64),
        groups=nearest[:, : gridsize**2].astype(np.int64),
        scan_index=every,
        object_shape=SHAPE,
    )


def partly_coherent(
    *, gridsize: int = 1, photons: float = 1e5, background: float = 0.0, masked: float = 0.0
) -> Measurement:
    """Return Poisson counts of two orthogonal modes, .7 and .3 of the light, by numpy's FFT.

    With a background that differs from pixel to pixel, and masks of each pattern.
    """
    plain = measurement_of(gridsize=gridsize, photons=photons)
    random = np.random.default_rng(23)
    first = plain.probe.astype(np.complex128) / np.linalg.norm(plain.probe)
    x = np.mgrid[:SIDE, :SIDE][1] - SIDE / 2
    second = first * (x + 0.5j * x)
    second -= first * np.vdot(first, second)
    modes = np.stack([first * 0.7**0.5, second * (0.3**0.5 / np.linalg.norm(second))])
    modes *= photons**0.5
    waves = modes[:, None] * cut(true_object(), plain.positions_px)
    detector = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    dark = background * random.uniform(0.5, 1.5, (SIDE, SIDE)).astype(np.float32)
    counts = random.poisson((np.abs(detector) ** 2).sum(axis=0) + dark)
    bad = random.random(counts.shape) < masked
    return replace(
        plain,
        amplitudes=np.sqrt(np.where(bad, 0, counts)).astype(np.float32),
        probe=modes.astype(np.complex64),
        background=dark if background else None,
        bad_pixels=bad if masked else None,
    )


def same_light(modes: np.ndarray) -> np.ndarray:
    """Return two modes in another unitary mixture."""
    unitary = np.array([[0.6, 0.8j], [0.8j, 0.6]], np.complex64)
    return np.tensordot(unitary, modes, axes=1)


def config_of(measurement: Measurement, **changes) -> TrainingConfig:
    channels = measurement.groups.shape[1]
    return TrainingConfig(**(SETTINGS | {"channels": channels, "epochs": 1, "seed": 3} | changes))


def fingerprint(trained: TrainedNetwork) -> str:
    """Return a hash of every weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(trained.network.state_dict().items()):
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
