"""Phase F: iterative reconstruction of one dose, view and split, from a uniform object."""

from pathlib import Path
from typing import Any

import numpy as np

from study_lib.design import StudyDesign
from study_lib.files import sha256_of, write_npz
from study_lib.measurement import load_measurement
from study_lib.paths import reconstruction_folder, view_path
from study_lib.ptychi_engine import reconstruct
from study_lib.records import Job, recorded

RESULT = "reconstruction.npz"


def reconstruct_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    split: str,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
) -> dict[str, Any]:
    """Reconstruct every pattern of one view and split with the known probe; write the result.

    Raises
    ------
    InputError
        If dose or view are not in the design, or the view's file is missing or broken.
    """
    design.require_dose(dose)
    view = design.view(view_name)
    folder = reconstruction_folder(artifact_root, dose, view.name, split)
    source = view_path(phase_c_root, phase_d_root, dose, view.name, split)
    settings = design.iterative
    job = Job(
        manifest=artifact_root / "reconstruction_manifest.json",
        key=folder.relative_to(artifact_root).as_posix(),
        folder=folder,
        parameters={
            "dose": dose,
            "view": view.name,
            "split": split,
            "design": design.digest,
            **settings.model_dump(),
        },
        seeds={"iterative": design.noise_seeds.iterative},
        inputs=[source],
    )
    with recorded(job):
        measurement = load_measurement(source)
        result = reconstruct(
            amplitudes=measurement.amplitudes,
            positions_px=measurement.positions_px,
            probe=measurement.probe,
            object_shape=measurement.object_shape,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            noise_model=settings.noise_model,
            seed=design.noise_seeds.iterative,
            bad_pixels=measurement.bad_pixels,
            progress=lambda epoch, epochs, loss: job.progress("lsqml", epoch, epochs, loss=loss),
        )
        job.results |= {
            "patterns": len(measurement.scan_index),
            "epochs": len(result.losses),
            "first_loss": float(result.losses[0]),
            "final_loss": float(result.losses[-1]),
            "reconstruction_cpu_s": result.cpu_s,
            "measurement_sha256": sha256_of(source),
            "options": result.options,
        }
        arrays = {
            "object": result.object_.astype(np.complex64),
            "probe": result.probe.astype(np.complex64),
            "losses": result.losses,
            "scan_index": measurement.scan_index,
        }
        metadata = {"arm": "lsqml", "frame": "object of the dataset file", **job.results}
        write_npz(folder / RESULT, arrays, metadata)
        job.outputs.append(folder / RESULT)
    return job.results
