"""One configuration holds every knob of a training, and nothing in it is left to a default."""

import pytest
from pydantic import ValidationError

from study_lib.design.presets import load_design, preset_names
from study_lib.errors import InputError
from study_lib.networks.pinn.config import Machine, TrainingConfig, training_config


@pytest.mark.parametrize("view", ["baseline", "dense", "sparse"])
def test_every_value_of_the_design_arrives(view):
    design = load_design("smoke", ["training.loss=amplitude", "training.gradient_clip_norm=2.0"])

    config = training_config(design, view)

    assert config.model_dump().items() >= design.training.model_dump().items()
    assert config.channels == design.view(view).gridsize ** 2
    assert config.side_px == design.patch_size_px
    assert config.seed == design.seeds.training


def test_replicates_train_with_seeds_of_their_own():
    seeds = {
        training_config(load_design("smoke", [f"replicate={replicate}"]), "dense").seed
        for replicate in range(3)
    }
    assert len(seeds) == 3


def test_nothing_that_decides_a_result_has_a_default():
    assert [
        name for name, field in TrainingConfig.model_fields.items() if not field.is_required()
    ] == []


def test_what_decides_leaves_out_the_machine_only():
    here, there = (
        training_config(load_design("smoke"), "dense", machine)
        for machine in (
            Machine(device="cpu", threads=1, compile=False),
            Machine(device="cuda:1", threads=None, compile=True),
        )
    )
    assert here != there
    assert here.decisive == there.decisive
    assert here.decisive.keys() == TrainingConfig.model_fields.keys() - Machine.model_fields.keys()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", "CPU"])
def test_devices_that_do_not_exist_are_refused(device):
    with pytest.raises(ValidationError, match="pattern"):
        Machine(device=device, threads=None, compile=False)


def test_unknown_view_is_refused():
    with pytest.raises(InputError, match="view 'medium' is not in the design"):
        training_config(load_design("smoke"), "medium")


@pytest.mark.parametrize("preset", [one for one in preset_names() if load_design(one).training])
def test_every_preset_with_the_network_gives_a_configuration(preset):
    design = load_design(preset)

    channels = [training_config(design, view.name).channels for view in design.views]
    assert channels == [view.gridsize**2 for view in design.views]
    assert set(channels) == {1, 4}
