"""Phase E: train the network of one dose and view, and keep it as a bundle anyone can load."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from study_lib.design import StudyDesign
from study_lib.errors import InputError
from study_lib.files import atomic_path, sha256_of, write_json, write_text
from study_lib.measurement import load_measurement
from study_lib.network import PtychoPinn
from study_lib.paths import training_folder, view_path
from study_lib.records import Job, recorded, utc_now
from study_lib.training import History, TrainedNetwork, train

BUNDLE = "model.pt"


def train_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
) -> dict[str, Any]:
    """Train on the train split of one view; write bundle, history, log and record.

    Raises
    ------
    InputError
        If dose or view are not in the design, or the view's file is missing or broken.
    """
    design.require_dose(dose)
    view = design.view(view_name)
    folder = training_folder(artifact_root, dose, view.name, view.gridsize)
    source = view_path(phase_c_root, phase_d_root, dose, view.name, "train")
    log: list[str] = []
    job = Job(
        manifest=artifact_root / "training_manifest.json",
        key=folder.relative_to(artifact_root).as_posix(),
        folder=folder,
        parameters={
            "dose": dose,
            "view": view.name,
            "gridsize": view.gridsize,
            "design": design.digest,
            **design.training.model_dump(),
        },
        seeds={"training": design.noise_seeds.training},
        inputs=[source],
    )
    with recorded(job):
        measurement = load_measurement(source)

        def progress(epoch: int, epochs: int, loss: float) -> None:
            job.progress("train", epoch, epochs, loss=loss)
            log.append(f"{utc_now()} epoch {epoch}/{epochs} half deviance per pixel {loss:.6f}")
            write_text(folder / "train.log", "\n".join(log) + "\n")

        trained = train(
            measurement,
            seed=design.noise_seeds.training,
            progress=progress,
            **design.training.model_dump(),
        )
        trained = replace(trained, measurement_sha256=sha256_of(source))
        save_bundle(folder / BUNDLE, trained, design.training.filters_scale)
        write_json(folder / "history.json", asdict(trained.history))
        job.outputs += [folder / BUNDLE, folder / "history.json", folder / "train.log"]
        job.results |= {
            "patterns": len(measurement.scan_index),
            "groups": len(measurement.groups),
            "precision": "bfloat16" if trained.network.half_precision else "float32",
            "parameters": sum(weight.numel() for weight in trained.network.parameters()),
            "final_loss": trained.history.train[-1],
            "validation_loss": trained.history.validation[-1],
            "uniform_object_loss": trained.history.uniform_object,
            "epochs": len(trained.history.train),
        }
    return job.results


def save_bundle(path: Path, trained: TrainedNetwork, filters_scale: int) -> None:
    """Write weights, shape and history of a network; loads with ``weights_only=True``."""
    network = trained.network
    content = {
        "state": network.state_dict(),
        "channels": network.amplitude.channels,
        "side": 4 * network.amplitude.margin,
        "filters_scale": filters_scale,
        "half_precision": network.half_precision,
        "history": asdict(trained.history),
        "training_cpu_s": trained.training_cpu_s,
        "measurement_sha256": trained.measurement_sha256,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_bundle(path: Path) -> TrainedNetwork:
    """Return the network that :func:`save_bundle` wrote; runs no code from the file.

    Raises
    ------
    InputError
        If the file is missing or is not such a bundle.
    """
    if not path.is_file():
        raise InputError(f"{path}: no trained network; run `study train` for this dose and view")
    try:
        content = torch.load(path, weights_only=True)
        network = PtychoPinn(
            channels=content["channels"],
            side=content["side"],
            filters_scale=content["filters_scale"],
            half_precision=content["half_precision"],
        )
        network.load_state_dict(content["state"])
        history = History(**content["history"])
        training_cpu_s = float(content["training_cpu_s"])
        measurement_sha256 = str(content["measurement_sha256"])
    except Exception as error:  # torch raises many types here; each means the same to the user
        raise InputError(f"{path}: not a network of this study ({error}); train it again") from None
    channels_last = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    return TrainedNetwork(channels_last.eval(), history, training_cpu_s, measurement_sha256)
