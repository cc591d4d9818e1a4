"""What a run has computed, without times, which no two runs share."""

from pathlib import Path

from study_lib.archive import read_npz
from study_lib.bundle import load_bundle
from study_lib.thinned_bundle import ENSEMBLE, load_ensemble


def results_of(run_folder: Path) -> dict[str, str]:
    """Return the bytes of every array and every weight of a run, by file and name."""
    found = {}
    for path in sorted(run_folder.glob("phase_*/**/*")):
        name = path.relative_to(run_folder).as_posix()
        if path.suffix == ".npz":
            arrays, _ = read_npz(path)
            for key, array in arrays.items():
                if not key.endswith("wall_s"):
                    found[f"{name} {key}"] = array.tobytes().hex()
        elif path.name == ENSEMBLE:
            for index, member in enumerate(load_ensemble(path).members):
                for key, weight in member.state_dict().items():
                    found[f"{name} {index} {key}"] = weight.numpy().tobytes().hex()
        elif path.suffix == ".pt":
            for key, weight in load_bundle(path).network.state_dict().items():
                found[f"{name} {key}"] = weight.numpy().tobytes().hex()
    return found
