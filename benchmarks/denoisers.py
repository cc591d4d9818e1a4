"""The denoisers that alternate with the solver, on white noise that is known.

    OMP_NUM_THREADS=1 python benchmarks/denoisers.py                # grains of the preset laptop
    OMP_NUM_THREADS=1 python benchmarks/denoisers.py --set specimen.kind=cells

Every family is shown at the best, by the truth, of the strengths that the study tries before it
denoises once (the quicker search by similar blocks at those of the whole one), so that none is held
back by a rule of choice. What they are worth for the noise of a reconstruction, which is
not white, held-out counts say in every run: this only shows how strong each one is by itself.
"""

import argparse
import time

import numpy as np
from jaxtyping import Complex

from study_lib.design.presets import load_design
from study_lib.phases.scene import scene_of
from study_lib.solvers.denoising import FAMILIES, STRENGTHS, denoised

SIDE_PX = 192
NOISES = (0.03, 0.1, 0.3)  # standard deviation of each part; the object's modulus is .7 to 1


def psnr_db(found: Complex[np.ndarray, "y x"], truth: Complex[np.ndarray, "y x"]) -> float:
    """Return the peak signal-to-noise ratio of complex objects of modulus up to one."""
    return float(-10 * np.log10(np.mean(np.abs(found - truth) ** 2)))


def main() -> None:
    """Print a line for each denoiser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="NAME=VALUE")
    parser.add_argument("--seed", type=int, default=1, help="of the noise")
    arguments = parser.parse_args()
    design = load_design(arguments.preset, arguments.changes)
    truth = scene_of(design).object_[:SIDE_PX, :SIDE_PX].astype(np.complex64)
    height, width = truth.shape
    print(f"{design.preset}, {height} x {width} pixels; PSNR in dB, best strength in brackets")
    print(f"{'denoiser':22s}" + "".join(f"  noise {noise:<7g}" for noise in NOISES) + "    CPU s")
    random = np.random.default_rng(arguments.seed)
    waves = [random.standard_normal((2, height, width)) for _ in NOISES]
    noisy = [
        (truth + noise * (wave[0] + 1j * wave[1])).astype(np.complex64)
        for noise, wave in zip(NOISES, waves, strict=True)
    ]
    cells = [f"{psnr_db(one, truth):6.2f}        " for one in noisy]
    print(f"{'none':22s}" + " ".join(cells))
    for family in FAMILIES:
        strengths = STRENGTHS.get(family, STRENGTHS["similar_blocks"])
        cells, started = [], time.process_time()
        for noise, one in zip(NOISES, noisy, strict=True):
            found = {
                strength: psnr_db(denoised(one, family, strength, noise), truth)
                for strength in strengths
            }
            best = max(found, key=lambda strength: found[strength])
            cells.append(f"{found[best]:6.2f} ({best:4g}) ")
        spent_s = (time.process_time() - started) / len(NOISES) / len(strengths)
        print(f"{family:22s}" + " ".join(cells) + f"{spent_s:8.3f}", flush=True)


if __name__ == "__main__":
    main()
