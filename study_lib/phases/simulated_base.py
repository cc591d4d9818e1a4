"""A measurement again, with simulated counts: what it would be if its model were true."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from study_lib.data.archive import metadata_of, open_npz
from study_lib.data.datasets import read_dataset
from study_lib.data.formats.acquisition import ReadChoices, transformation
from study_lib.data.verdict import SIMULATED_FROM, Verdict, verdict_in, worse_of
from study_lib.errors import InputError
from study_lib.files import sha256_of
from study_lib.phases.import_data import Imported, imported, with_verdict
from study_lib.physics.simulation import count_photons, expected_patterns


def with_simulated_counts(path: Path, seed: int) -> Imported:
    """Return a measurement with Poisson counts of its own object and probe, at its own positions.

    Everything else stays: masks, background, geometry, and the photons of the whole scan on
    average, as the probe is in their scale. A study on it differs from one on the measured counts
    by what the model does not describe, and by chance.

    Parameters
    ----------
    path
        Base data with counts (DATA-001).
    seed
        Of the counts.

    Returns
    -------
    Imported
        With the facts and the verdict on the simulated counts, which is no better than that on the
        measurement; its metadata name the measurement.

    Raises
    ------
    InputError
        If the file breaks the contract, has no patterns, or its amplitudes have no photon scale.

    Examples
    --------
    >>> from pathlib import Path
    >>> from study_lib.errors import InputError
    >>> from study_lib.phases.simulated_base import with_simulated_counts
    >>> try:
    ...     with_simulated_counts(Path("scan.npz"), seed=1)
    ... except InputError as error:
    ...     print(error)
    scan.npz: no such file; give the path of an NPZ file
    """
    measured = read_dataset(path)
    with open_npz(path) as archive:
        metadata = metadata_of(archive)
    if measured.amplitudes is None or measured.is_normalized:
        what = "amplitudes without a photon scale" if measured.is_normalized else "no patterns"
        raise InputError(f"{path}: {what}; give base data with counts, as `study import` writes")
    probe, object_ = measured.require("probe", "object_")
    patterns = expected_patterns(object_, probe, measured.positions_px)
    count_photons(
        patterns,
        dark_counts=0.0 if measured.background is None else measured.background,
        bad_pixels=measured.bad_pixels,
        random=np.random.default_rng(seed),
    )
    simulated = replace(
        measured,
        amplitudes=patterns,
        transformations=(
            *metadata.get("transformations", ()),
            transformation("counts simulated", source=path.name, seed=seed),
        ),
        metadata={"source": path.name, SIMULATED_FROM: sha256_of(path)},
    )
    found = imported(simulated, ReadChoices(), algorithm="solver", epochs=1, seed=seed)
    before = verdict_in(metadata)
    if before is None or before.level == "good":
        return found
    reasons = tuple(f"the measurement: {reason}" for reason in before.reasons)
    return with_verdict(found, worse_of(found.verdict, Verdict(before.level, reasons)))
