"""A trained `pinn-thinned` as a file that anyone can load, and that runs no code when loaded."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from study_lib.design.thinned_design import ThinnedDesign
from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.networks.thinned.ensemble import Smoothing, ThinnedEnsemble, Trust
from study_lib.networks.thinned.inputs import MAPS, ThinnedChoices
from study_lib.networks.thinned.network import MixingNetwork
from study_lib.solvers.denoiser_choice import Candidate

ENSEMBLE = "ensemble.pt"


def save_ensemble(path: Path, ensemble: ThinnedEnsemble) -> None:
    """Write weights, choices and origin; loads with ``weights_only=True``."""
    content = {
        "states": [member.state_dict() for member in ensemble.members],
        "candidates": ensemble.members[0].candidates,
        "choices": ensemble.choices.record(),
        "smoothing": asdict(ensemble.smoothing),
        "trust": asdict(ensemble.trust),
        "design": ensemble.design.model_dump(mode="json"),
        "seed": ensemble.seed,
        "side_px": ensemble.side_px,
        "half_precision": ensemble.half_precision,
        "training_cpu_s": ensemble.training_cpu_s,
        "measurement_sha256": ensemble.measurement_sha256,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_ensemble(path: Path) -> ThinnedEnsemble:
    """Return the ensemble that :func:`save_ensemble` wrote; runs no code from the file.

    Raises
    ------
    InputError
        If the file is missing or is not such an ensemble.
    """
    if not path.is_file():
        raise InputError(f"{path}: no ensemble; run `study train-thinned` for this dose and view")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        design = ThinnedDesign.model_validate_json(json.dumps(content["design"]))
        return ThinnedEnsemble(
            members=tuple(_member(state, content, design) for state in content["states"]),
            choices=ThinnedChoices.from_record(content["choices"]),
            smoothing=_smoothing(content["smoothing"]),
            trust=Trust(**content["trust"]),
            design=design,
            seed=int(content["seed"]),
            side_px=int(content["side_px"]),
            half_precision=bool(content["half_precision"]),
            training_cpu_s=float(content["training_cpu_s"]),
            measurement_sha256=str(content["measurement_sha256"]),
        )
    except pickle.UnpicklingError:  # whose text advises to load it all the same
        raise InputError(
            f"{path}: not an ensemble of this study (torn, or holds more than numbers and text); "
            "train it again"
        ) from None
    except Exception as error:  # torch raises many types here; each means the same to the user
        raise InputError(
            f"{path}: not an ensemble of this study ({error}); train it again"
        ) from None


def _member(
    state: dict[str, torch.Tensor], content: dict[str, Any], design: ThinnedDesign
) -> MixingNetwork:
    network = MixingNetwork(
        candidates=int(content["candidates"]),
        maps=MAPS,
        base=0,
        widths=design.widths,
        data_steps=design.data_steps,
        residual_scale=design.residual_scale,
        half_precision=bool(content["half_precision"]),
    )
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def _smoothing(content: dict[str, Any]) -> Smoothing:
    tried = tuple(Candidate(**candidate) for candidate in content["tried"])
    return Smoothing(content["family"], content["strength"], tried)
