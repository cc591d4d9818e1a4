"""A design from the command line: its options, what they change, whether it can be carried out."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study_lib.errors import InputError

if TYPE_CHECKING:
    from study_lib.design.axes import Source
    from study_lib.design.models import StudyDesign
    from study_lib.phases.scene import Scene

Preset = Annotated[
    str, typer.Option(help="Preset (smoke, laptop, fly64, ...) or the path of a YAML file.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the design, like training.epochs=5."),
]
BaseNpz = Annotated[
    Path | None, typer.Option(help="Base data from `study import`; default: the synthetic object.")
]
Simulated = Annotated[
    bool,
    typer.Option(
        "--simulated",
        help="Simulate counts on the object of the base data; default: their own counts, if the "
        "file has patterns.",
    ),
]
AcceptDoubtful = Annotated[
    bool,
    typer.Option(
        "--accept-doubtful", help="Take base data although their import was judged wrong."
    ),
]
Doses = Annotated[
    str | None,
    typer.Option(help="Doses of the study, like 1e3,1e4 or 1e3..1e6/4; default: the preset's."),
]
Overlaps = Annotated[
    str | None,
    typer.Option(
        help="One view for each overlap (metric 2), like 0.8,0.6 or 0.8..0.2/4, of single patterns "
        "evenly spread; default: the preset's views."
    ),
]
Points = Annotated[
    Path | None,
    typer.Option(help="CSV table with columns dose and overlap: these conditions and no others."),
]
Sobol = Annotated[
    int | None,
    typer.Option(
        help="So many points that fill the ranges of --doses and --overlaps evenly, such as "
        "1e3..1e6 and 0.2..0.8, instead of each dose with each view."
    ),
]
WantedQuality = Annotated[
    list[str] | None,
    typer.Option(
        "--wanted",
        help="A quality whose least dose is asked for, like frc=20nm, frc=0.5 (of Nyquist) or "
        "phase_error=0.05; repeat it.",
    ),
]
Replicates = Annotated[
    int | None,
    typer.Option(help="Repetitions with other noise, choice of patterns and training."),
]


def changes_of(
    settings: Sequence[str] | None,
    doses: str | None = None,
    overlaps: str | None = None,
    points: Path | None = None,
    sobol: int | None = None,
    replicates: int | None = None,
    wanted: Sequence[str] | None = None,
    *,
    simulated: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Return what a call changes in a preset: settings, and values that count after them.

    Raises
    ------
    InputError
        If two options say which doses and overlaps, or one of them cannot be read.
    """
    from study_lib.design.axes import conditions_of_options

    changes = list(settings or ())
    values = conditions_of_options(doses, overlaps, points, sobol)
    if "points" in values:
        said = [one for one in changes if one.partition("=")[0] in values]
        if said:
            option = "--sobol" if sobol is not None else "--points"
            raise InputError(f"{option} has the doses and overlaps; leave out --set {said[0]}")
    elif values and not any(one.startswith("points=") for one in changes):
        values["points"] = []  # those of a preset name other doses or views
    if replicates is not None:
        changes.append(f"replicates={replicates}")
    if wanted:
        changes.append(f"wanted={json.dumps(list(wanted))}")
    if simulated:
        changes.append("source=simulated")
    return changes, values


def feasible(
    preset: str,
    base_npz: Path | None,
    settings: Sequence[str],
    values: Mapping[str, Any] = MappingProxyType({}),
    *,
    accept_doubtful: bool = False,
) -> "tuple[StudyDesign, Scene]":
    """Return a design that can be carried out, and its scene; measured counts have to be whole."""
    from study_lib.data.datasets import load_measurement
    from study_lib.design.presets import load_design
    from study_lib.phases.scene import scene_of
    from study_lib.runs.forecast import check_feasible
    from study_lib.runs.room import check_count
    from study_lib.runs.run import base_data, usual_source

    source: Source = "simulated"
    measurement = None
    if base_npz:
        from study_lib.data.contract import require_valid

        for note in require_valid(base_npz, base=True).violations:
            if note.key in ("probeGuess", "objectGuess"):
                print(f"{base_npz}: note: {note}", file=sys.stderr)
        source = usual_source(base_npz)
    base = base_data(base_npz, accept_doubtful=accept_doubtful) if base_npz else None
    for doubt in base.doubts if base else ():
        print(f"{base_npz}: warning: {doubt}", file=sys.stderr)
    design = load_design(preset, settings, base, values, source)
    if base_npz and design.is_measured:
        from study_lib.phases.measured import require_whole  # torch comes with it

        measurement = load_measurement(base_npz)
        require_whole(base_npz, measurement.amplitudes)
        print(
            f"{base_npz}: its own counts, patterns of {design.patch_size_px} pixels a side, "
            f"{_draws_text(design)}; --simulated for counts of its object",
            file=sys.stderr,
        )
    check_count(design)
    scene = scene_of(design, base_npz)
    check_feasible(design, scene)
    if measurement is not None:
        from study_lib.phases.reconstruct import check_algorithms  # torch comes with it

        check_algorithms(design, scene, measurement)
    return design, scene


def _draws_text(design: "StudyDesign") -> str:
    """Return how many draws of measured photons there are, and which of them train networks."""
    trained = design.trained_replicates or design.replicates
    text = f"{design.replicates} draws of the photons"
    if trained >= design.replicates or not (design.training or design.thinned):
        return text
    return (
        f"{text}, networks in the first {trained} (--set trained_replicates={design.replicates} "
        "for all)"
    )
