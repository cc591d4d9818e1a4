"""How near the solver and LSQML come to measured patterns with the probe unknown, and at what cost.

    OMP_NUM_THREADS=1 python benchmarks/blind.py siemens-star-small.npz.bz2 --modes 1 2

Both start from the same first probe, with weak further modes, and a uniform object; the solver
stops where it has converged, LSQML goes on for its epochs. One line each: R-factor, what photon
noise alone leaves, epochs, processor seconds. Machines are noisy: ratios of one run say more than
seconds. `study example star` gets the file.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.registry import read_file
from study_lib.phases.blind import ALGORITHMS, measurement_of, solve_blind
from study_lib.phases.import_fit import fit_of
from study_lib.physics.probe import with_more_modes

SEED = 1011


def main() -> None:
    """Print a line for each number of modes and each algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="measured data, as for `study import`")
    parser.add_argument("--modes", type=int, nargs="+", default=[1, 2], help="of the probe")
    parser.add_argument("--epochs", type=int, nargs="+", default=[100], help="of LSQML")
    choices = parser.parse_args()
    scan, _ = read_file(choices.source, ReadChoices())
    measurement, _ = measurement_of(scan)
    print("algorithm  modes  epochs  R-factor  of noise  CPU s")
    for modes in choices.modes:
        given = replace(measurement, probe=with_more_modes(measurement.probe, modes, SEED))
        for algorithm in ALGORITHMS:
            for epochs in [1000] if algorithm == "solver" else choices.epochs:
                found = solve_blind(given, algorithm, epochs, SEED, None, algorithm)
                fit = fit_of(scan, found.probe, found.object_, found.positions_px)
                noise = f"{fit.r_noise:8.4f}" if fit.r_noise is not None else "       -"
                print(
                    f"{algorithm:9}  {modes:5}  {found.epochs:6}  {fit.r_factor:8.4f}  {noise}  "
                    f"{found.cpu_s:5.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
