"""Phase E: train the network of one dose and view, and keep it as a bundle anyone can load."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from study_lib.bundle import save_bundle
from study_lib.design import StudyDesign
from study_lib.files import sha256_of, write_json, write_text
from study_lib.history import EpochRecord
from study_lib.measurement import load_measurement
from study_lib.paths import training_folder, view_path
from study_lib.records import Job, recorded, utc_now
from study_lib.training import train
from study_lib.training_config import training_config

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
    config = training_config(design, view.name)
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

        def progress(record: EpochRecord, epochs: int) -> None:
            job.progress("train", record.epoch, epochs, loss=record.train)
            log.append(
                f"{utc_now()} epoch {record.epoch}/{epochs} {config.loss} loss per pixel "
                f"{record.train:.6f}, validation {record.validation:.6f}, "
                f"learning rate {record.learning_rate:g}, {record.patterns_per_s:.1f} patterns/s"
            )
            write_text(folder / "train.log", "\n".join(log) + "\n")

        trained = train(measurement, config, progress=progress)
        trained = replace(trained, measurement_sha256=sha256_of(source))
        save_bundle(folder / BUNDLE, trained)
        write_json(folder / "history.json", trained.history.as_dict())
        trained.history.write_csv(folder / "history.csv")
        job.outputs += [
            folder / name for name in (BUNDLE, "history.json", "history.csv", "train.log")
        ]
        job.results |= {
            "patterns": len(measurement.scan_index),
            "groups": len(measurement.groups),
            "precision": trained.config.precision,
            "parameters": sum(weight.numel() for weight in trained.network.parameters()),
            "final_loss": trained.history.train[-1],
            "validation_loss": trained.history.validation[-1],
            "uniform_object_loss": trained.history.uniform_object,
            "epochs": len(trained.history.train),
        }
    return job.results
