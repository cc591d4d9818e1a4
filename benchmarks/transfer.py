"""How the thinning network does on other objects, doses and probes, and on a measured star.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py                 # laptop, sparse: ten minutes
    OMP_NUM_THREADS=1 python benchmarks/transfer.py --star base.npz # measured, from `study import`

Trains on the train split of each kind of object and tries each ensemble on the test split of every
kind. ``network`` is shown as if trusted; ``gain`` is what photons of the *tried* measurement that
were kept from the input say of it against the base, and so decides without a truth whether the
network is used there. Then the home ensemble at a tenth and ten times its dose, and with a probe of
5 % more defocus. With ``--star`` the two halves of measured patterns: no truth, but the Fourier
ring correlation of two objects made of disjoint photons, and the same gains.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from study_lib.data.datasets import load_measurement
from study_lib.design.methods import ThinnedDesign
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.networks.thinned.ensemble import ThinnedEnsemble, reconstruct_thinned
from study_lib.networks.thinned.studies import local_gains
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE, Trust, width_px
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.physics.measurement import Measurement, at_positions, split_photons
from study_lib.physics.probe import zone_plate_probe
from study_lib.runs.run import Run
from study_lib.scores.frc import ring_correlation
from study_lib.scores.scoring import scored_pixels, scores_of

KINDS = ("grains", "cells", "power_law", "siemens_star")
SEED = 1


def halves(
    design: StudyDesign, dose: float, view: str, folder: Path
) -> tuple[Measurement, Measurement, np.ndarray]:
    """Return train and test split of one dose and view, and the true object."""
    test = Run(folder, design).condition(dose, view)
    generate(test)
    if view != "baseline":
        choose_view(test)
    return test.of("train").measurement(), test.measurement(), test.truth()


def line(name: str, ensemble: ThinnedEnsemble, test: Measurement, truth: np.ndarray) -> str:
    """Return scores of base and network, and what the tried measurement itself says."""
    crop, mask = scored_pixels(test, 0.1)
    found = reconstruct_thinned(ensemble, test, trust=SURE)
    texts = []
    for object_ in (found.base, found.object_):
        limits = {"registration_limit_px": 3.0, "frc_threshold": 0.5}
        scores, _ = scores_of(object_, truth, crop, mask, **limits)
        texts.append(f"{scores['phase_ssim']:.3f} / {scores['phase_psnr_db']:5.2f} dB")
    return f"{name:32s} base {texts[0]}   network {texts[1]}   {verdict(ensemble, test)}"


def verdict(ensemble: ThinnedEnsemble, test: Measurement) -> str:
    """Return whether held-out photons of a measurement accept a network trained elsewhere."""
    gains = local_gains(ensemble, test, np.random.default_rng(SEED))
    trust = Trust.of(gains, test.positions_px, width_px(test.probe))
    word = "used" if trust.given else "base kept"
    return f"gain {trust.gain_nats:7.2f} +- {trust.standard_error_nats:5.2f} nats: {word}"


def objects(arguments: argparse.Namespace, root: Path) -> None:
    """Print what ensembles do on objects, doses and probes other than their own."""
    designs = {
        kind: load_design(
            arguments.preset,
            [f"specimen.kind={kind}", "doses=[1.0e+3, 1.0e+4, 1.0e+5]"]
            if kind != "grains"
            else ["doses=[1.0e+3, 1.0e+4, 1.0e+5]"],
        )
        for kind in KINDS
    }
    view, dose = arguments.view, arguments.dose
    data = {kind: halves(designs[kind], dose, view, root / kind) for kind in KINDS}
    trained = {}
    for kind in tqdm(KINDS, unit="training"):
        trained[kind], _ = train_thinned(data[kind][0], shortened(arguments), seed=SEED)
    print(f"{arguments.preset}, {view}, {dose:g} photons per pattern, phase SSIM / PSNR")
    for tried, (_, test, truth) in data.items():
        for taught, ensemble in trained.items():
            print(line(f"taught by {taught}, tried on {tried}", ensemble, test, truth))
    home = trained["grains"]
    for other in (dose / 10, dose * 10):
        _, test, truth = halves(designs["grains"], other, view, root / f"grains{other:g}")
        print(line(f"grains, at {other:g} photons", home, test, truth))
    _, test, truth = data["grains"]
    print(line("grains, 5 % more defocus", home, wrong_probe(test, designs["grains"]), truth))


def shortened(arguments: argparse.Namespace) -> ThinnedDesign:
    """Return the training of the preset, with fewer members or steps if the call says so."""
    asked = {"members": arguments.members, "steps": arguments.steps}
    changed = {name: value for name, value in asked.items() if value is not None}
    return load_design(arguments.preset).thinned.model_copy(update=changed)


def wrong_probe(measurement: Measurement, design: StudyDesign) -> Measurement:
    """Return the measurement with a probe of 5 % more defocus."""
    probe = design.probe
    defocused = zone_plate_probe(
        side_px=design.patch_size_px,
        aperture_per_px=probe.aperture_per_px,
        stop_ratio=probe.stop_ratio,
        defocus_radius_px=1.05 * probe.defocus_radius_px,
    )
    power = np.sqrt((np.abs(measurement.probe) ** 2).sum() / (np.abs(defocused) ** 2).sum())
    return replace(measurement, probe=(power * defocused).astype(np.complex64))


def star(arguments: argparse.Namespace) -> None:
    """Print what can be known of measured patterns without a truth."""
    whole = load_measurement(arguments.star)
    rows = whole.positions_px[:, 0]
    order = np.argsort(rows, kind="stable")
    train, test = (at_positions(whole, np.sort(part)) for part in np.array_split(order, 2))
    ensemble, _ = train_thinned(train, shortened(arguments), seed=SEED)
    trust = ensemble.trust
    print(
        f"measured star, {len(train.scan_index)} + {len(test.scan_index)} patterns: "
        f"gain on the patterns left out {trust.gain_nats:.2f} +- {trust.standard_error_nats:.2f} "
        f"nats, base {ensemble.choices.base}; test half: {verdict(ensemble, test)}"
    )
    parts = split_photons(test, 0.5, np.random.default_rng(SEED))
    crop, mask = scored_pixels(test, 0.1)
    found = [reconstruct_thinned(ensemble, part, trust=SURE) for part in parts]
    for name, pair in {
        "base": [one.base for one in found],
        "network": [one.object_ for one in found],
    }.items():
        ring = ring_correlation(pair[0][crop], pair[1][crop], mask)
        print(f"  {name:8s} correlation of disjoint photons: {_some(ring.correlation)}")
    print(f"  {'':8s} at frequency / Nyquist:           {_some(ring.frequency)}")


def _some(values: Sequence[float]) -> str:
    picked = np.linspace(1, len(values) - 1, 8).astype(int)
    return "  ".join(f"{values[index]:.3f}" for index in picked)


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--view", default="sparse", choices=("baseline", "dense", "sparse"))
    parser.add_argument("--dose", type=float, default=1e4)
    parser.add_argument("--star", type=Path, help="base NPZ of measured patterns")
    parser.add_argument("--members", type=int, help="networks; default: the preset's")
    parser.add_argument("--steps", type=int, help="of each; default: the preset's")
    arguments = parser.parse_args()
    if arguments.star:
        star(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        objects(arguments, Path(scratch))


if __name__ == "__main__":
    main()
