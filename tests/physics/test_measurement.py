"""What an arm may know is arrays; where its patches lie is geometry."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study_lib.physics.forward import corners_of
from study_lib.physics.measurement import Measurement, box_of

SIDE = 16
PLACES = st.integers(4 * SIDE, 40 * SIDE).map(lambda quarters: quarters / 4)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(positions=st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=6))
def test_the_box_holds_every_patch_and_nothing_more(kind, positions):
    """Halves round to even, as where patches are cut."""
    positions_px = np.array(positions, kind)
    measurement = Measurement(
        amplitudes=np.zeros((len(positions), SIDE, SIDE), np.float32),
        positions_px=positions_px,
        probe=np.ones((SIDE, SIDE), np.complex64),
        groups=np.arange(len(positions))[:, None],
        scan_index=np.arange(len(positions)),
        object_shape=(12 * SIDE, 12 * SIDE),
    )
    lit = np.zeros(measurement.object_shape, bool)
    for row, column in corners_of(torch.from_numpy(positions_px), SIDE).tolist():
        lit[row : row + SIDE, column : column + SIDE] = True

    rows, columns = box_of(measurement)

    lit_rows, lit_columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
    assert (rows.start, rows.stop) == (lit_rows[0], lit_rows[-1] + 1)
    assert (columns.start, columns.stop) == (lit_columns[0], lit_columns[-1] + 1)
