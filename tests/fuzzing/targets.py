"""The readers that are fuzzed, each with small sound files to spoil.

Each target is made in a folder of its own, in which its file is spoilt; what a format keeps in a
second file lies there too.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzing.mutations import BLIND, TEXT, mutated, mutated_archive
from study_lib.data.contract import load_dataset, save_dataset, validate
from study_lib.data.formats.acquisition import Acquisition, Geometry
from study_lib.data.formats.cxi import write_cxi
from study_lib.data.formats.ptychi import write_ptychi
from study_lib.data.formats.ptychodus import patterns_path, write_ptychodus
from study_lib.data.formats.registry import ReadChoices, read_file
from study_lib.design.presets import PRESET_FOLDER, load_design
from study_lib.errors import InputError
from study_lib.runs.evidence import faults_of_run, faults_of_seal
from study_lib.runs.plan import plan_content, plan_jobs, read_plan
from study_lib.runs.progress import last_event, status_lines
from study_lib.runs.resources import read_resources
from study_lib.runs.run import create_run, open_run

NAMES = {
    "_npz": ("contract", "ptychopinn"),
    "_hdf5": ("cxi", "ptychi", "ptychi_parameters", "ptychodus", "ptychodus_patterns"),
    "_texts": ("yaml", "plan", "events"),
    "_run_files": ("design", "done", "failed", "datasets_manifest", "seal", "resources"),
    "_networks": ("network", "checkpoint"),
}
Change = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Target:
    """A reader, the name of the file that it reads, sound contents, and how they are spoilt."""

    read: Callable[[Path], object]
    file: str
    sound: tuple[bytes, ...]
    change: Change


def acquisition() -> Acquisition:
    """Return five small patterns with everything that a file can hold."""
    random = np.random.default_rng(0)
    return Acquisition(
        positions_px=random.uniform(9, 23, (5, 2)),
        amplitudes=np.sqrt(random.poisson(3, (5, 16, 16))).astype(np.float32),
        probe=np.full((16, 16), 1 + 0.5j, np.complex64),
        probe_is_scaled=True,
        object_=np.ones((32, 32), np.complex64),
        bad_pixels=np.zeros((16, 16), bool),
        scan_index=np.arange(5),
        geometry=Geometry(photon_energy_ev=8000.0, detector_distance_m=1.5, detector_pixel_m=75e-6),
    )


def target(name: str, folder: Path) -> Target:
    """Return a target, with its sound files made in a folder."""
    for make in (_npz, _hdf5, _texts, _run_files, _networks):
        if name in NAMES[make.__name__]:
            return make(folder)[name]
    raise KeyError(name)


def as_text(content: bytes, random: np.random.Generator) -> bytes:
    """Spoil a text."""
    return mutated(content, random, TEXT)


def blindly(content: bytes, random: np.random.Generator) -> bytes:
    """Spoil whatever it is."""
    return mutated(content, random, BLIND)


def _npz(folder: Path) -> dict[str, Target]:
    scan = acquisition()
    arrays = {
        "diffraction": scan.amplitudes,
        "probeGuess": scan.probe,
        "objectGuess": scan.object_,
        "xcoords": scan.positions_px[:, 1].copy(),
        "ycoords": scan.positions_px[:, 0].copy(),
        "scan_index": np.arange(5),
        "bad_pixels": scan.bad_pixels,
        "groups": np.array([[0, 1], [2, 3]]),
    }
    path = folder / "data.npz"
    save_dataset(path, arrays, {"domain": "amplitude"})
    sound = path.read_bytes()

    def both(path: Path) -> object:
        with suppress(InputError):  # refusing is right; the next reader gets the file too
            validate(path)
        return load_dataset(path)

    def foreign(path: Path) -> object:
        return read_file(path, ReadChoices(), "ptychopinn")

    return {
        "contract": Target(both, "data.npz", (sound,), mutated_archive),
        "ptychopinn": Target(foreign, "data.npz", (sound,), mutated_archive),
    }


def _hdf5(folder: Path) -> dict[str, Target]:
    scan = acquisition()
    write_cxi(folder / "scan.cxi", scan)
    write_ptychi(folder / "scan_dp.hdf5", scan)
    write_ptychodus(folder / "product.h5", scan)

    patterns = patterns_path(folder / "product.h5")

    def reader(name: str, file: str) -> Callable[[Path], object]:
        beside = patterns if name == "ptychodus" else None
        return lambda _: read_file(folder / file, ReadChoices(), name, beside)

    spoilt = (
        ("cxi", "cxi", "scan.cxi", "scan.cxi"),
        ("ptychi", "ptychi", "scan_dp.hdf5", "scan_dp.hdf5"),
        ("ptychi_parameters", "ptychi", "scan_para.hdf5", "scan_dp.hdf5"),
        ("ptychodus", "ptychodus", "product.h5", "product.h5"),
        ("ptychodus_patterns", "ptychodus", patterns.name, "product.h5"),
    )
    return {
        name: Target(reader(kind, opened), file, ((folder / file).read_bytes(),), blindly)
        for name, kind, file, opened in spoilt
    }


def _texts(folder: Path) -> dict[str, Target]:
    presets = tuple(path.read_bytes() for path in sorted(PRESET_FOLDER.glob("*.yaml")))
    jobs = plan_jobs(load_design("smoke"))
    plan = json.dumps(plan_content(jobs)).encode()
    event = b'{"time": "2026-01-01T00:00:00+00:00", "phase": "train", "step": 1, "total": 2}\n'
    return {
        "yaml": Target(lambda path: load_design(str(path)), "preset.yaml", presets, as_text),
        "plan": Target(read_plan, "plan.json", (plan,), as_text),
        "events": Target(last_event, "events.jsonl", (event, event * 3), as_text),
    }


def _run_files(folder: Path) -> dict[str, Target]:
    """Return the readers of what a run leaves beside its data, each with a run to lie in."""
    made = {}
    design = load_design("smoke")
    jobs = plan_jobs(design)
    first = jobs[0]
    run = create_run(folder / f"2026-01-01_smoke_{design.digest}", design).folder
    record = {"sha256": {"a.npz": "0" * 64}, "status": "done", "parameters": {}, "inputs": {}}
    manifest = {"jobs": {"a": {**record, "outputs": {"a.npz": "0" * 64}, "error": None}}}
    failure = {"job": first.name, "status": "failed", "error": "cell 3 failed", "lasts": True}
    contents = {
        "design.json": (run / "design.json").read_text(),
        str(first.done): json.dumps(record),
        str(first.failed): json.dumps(failure),
        "phase_c_datasets/datasets_manifest.json": json.dumps(manifest),
        "seal.json": json.dumps({"sha256": {"design.json": "0" * 64}}),
        "resources.json": json.dumps({first.name: {"mem_mb": 1}}),
    }
    for number, (name, text) in enumerate(contents.items()):
        own = folder / f"run{number}" / run.name
        shutil.copytree(run, own)
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)

        def read(path: Path, own: Path = own, name: str = name) -> object:
            path.replace(own / name)
            faults_of_seal(own)
            open_run(own)
            read_resources(own, jobs)
            status_lines(own, jobs)
            return faults_of_run(own)

        made[name.rsplit("/", 1)[-1].removesuffix(".json")] = Target(
            read, "record.json", (text.encode(),), as_text
        )
    return made


def _networks(folder: Path) -> dict[str, Target]:
    """Import torch here: every other target has a process of its own, and does without."""
    import torch
    from small_training import config_of, measurement_of

    from study_lib.networks.checkpoints import CheckpointFolder, read_checkpoint
    from study_lib.networks.pinn.bundle import load_network, save_bundle
    from study_lib.networks.pinn.training import train

    measurement = measurement_of(gridsize=1)
    save_bundle(folder / "network.pt", train(measurement, config_of(measurement, epochs=1)))
    checkpoints = CheckpointFolder(folder / "checkpoints", {"seed": 1}, {"threads": 1}, print)
    checkpoints.save({"weights": torch.ones(3), "step": 2})
    (checkpoint,) = (folder / "checkpoints").iterdir()
    return {
        "network": Target(
            load_network, "network.pt", ((folder / "network.pt").read_bytes(),), mutated_archive
        ),
        "checkpoint": Target(
            read_checkpoint, "last.checkpoint", (checkpoint.read_bytes(),), with_true_hash
        ),
    }


def with_true_hash(content: bytes, random: np.random.Generator) -> bytes:
    """Spoil a checkpoint; often its title states the hash of what is spoilt."""
    from study_lib.networks.checkpoints import TITLE

    if random.random() < 0.3:
        return blindly(content, random)
    payload = mutated_archive(content.partition(b"\n")[2], random)
    return TITLE + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
