"""Networks learn with the settings of the presets: none collapses to a constant.

`benchmarks/training.py reliability` does the same at more sizes and seeds.
"""

import pytest

from benchmarks.training import ONE_CORE, measured, phase_correlation
from study_lib.networks.pinn.config import training_config
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.training import train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "preset", "seed"),
    [
        ("baseline", "laptop", 0),
        ("dense", "laptop", 0),
        ("sparse", "smoke", 0),
    ],
)
def test_small_network_sees_the_phase_of_an_object_it_was_never_shown(view, preset, seed):
    """A constant object has no correlation with any truth, and the loss of a uniform one."""
    design, measurements, truth = measured(32, view, preset)
    config = training_config(design, view, ONE_CORE).model_copy(update={"seed": seed})

    trained = train(measurements["train"], config)

    assert trained.history.train[-1] < 0.5 * trained.history.uniform_object
    for split, part in measurements.items():
        assert phase_correlation(apply_network(trained, part), truth, part) > 0.5, split
