"""A run's folder: its design, its base data, where its phases keep their files."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from study_lib.data.archive import metadata_of, open_npz
from study_lib.data.contract import load_dataset
from study_lib.data.verdict import SIMULATED_FROM, require_believable, verdict_in
from study_lib.design.axes import MEASURED, SIMULATED, Source
from study_lib.design.models import BaseData, StudyDesign
from study_lib.design.notebooks import (
    DatasetParameters,
    DesignParameters,
    ExploreRunParameters,
    NotebookParameters,
    OverlapParameters,
    PhaseParameters,
    dotted,
)
from study_lib.design.presets import load_design, parse_design
from study_lib.errors import InputError
from study_lib.files import atomic_path, read_json, require_no_link_out, sha256_of, write_json
from study_lib.phases.conditions import (
    LEVELS,
    PHASES,
    REPLICATES,
    Condition,
    condition_of,
    read_scores,
    runs_within,
)

DESIGN_FILE = "design.json"
BASE_FILE = "base.npz"
PUBLISHED_FILE = "published.json"  # in a copy made for others: what was left out of it
SMALLEST_PATCH_PX = 16
ARRAYS = (".npz", ".pt")
SHOWN = 5
NAMED = re.compile(r"(?P<date>\d{4}-\d\d-\d\d)_.+_(?P<digest>[0-9a-f]{8})")


@dataclass(frozen=True)
class Run:
    """One folder with everything a run reads and writes."""

    folder: Path
    design: StudyDesign

    @property
    def base_npz(self) -> Path | None:
        """The run's own copy of the base data, if it has any; runs inside a run share one."""
        if not self.design.base:
            return None
        own, folder = self.folder / BASE_FILE, self.folder.resolve()
        above = {REPLICATES: folder.parent, LEVELS: folder.parent.parent}
        shared = next((up for place, up in above.items() if folder.match(place)), None)
        is_nested = shared is not None and (shared / DESIGN_FILE).is_file()
        return shared / BASE_FILE if shared and is_nested and not own.exists() else own

    def root(self, phase: str) -> Path:
        """Return the root folder of a phase, a key of ``study_lib.phases.conditions.PHASES``."""
        return self.folder / PHASES[phase]

    def condition(self, dose: float, view: str | None = None, split: str = "test") -> Condition:
        """Return one dose, view and split of the run.

        Parameters
        ----------
        dose
            Mean photons per pattern.
        view
            By name; default: the first of the design.
        split
            ``train`` or ``test``.

        Raises
        ------
        InputError
            If the design does not have them.
        """
        self.design.require_dose(dose)
        name = view or self.design.views_at(dose)[0].name
        return condition_of(self.design, self, dose, name, split, self.base_npz)


def base_data(base_npz: Path, *, accept_doubtful: bool = False) -> BaseData:
    """Return name, hash and doubts of a base file that holds the contract.

    Parameters
    ----------
    base_npz
        The file.
    accept_doubtful
        Whether it is taken although its import was judged wrong.

    Raises
    ------
    InputError
        If the file is missing, broken or breaks the contract, or its import was judged wrong.
    """
    arrays, metadata = load_dataset(base_npz, base=True)
    require_believable(base_npz, metadata, accept=accept_doubtful)
    verdict = verdict_in(metadata)
    side = arrays["probeGuess"].shape[-1]
    if side < SMALLEST_PATCH_PX:
        raise InputError(
            f"{base_npz}: the probe has {side} pixels a side; give one with at least "
            f"{SMALLEST_PATCH_PX}"
        )
    return BaseData(
        name=base_npz.name,
        sha256=sha256_of(base_npz),
        probe_side_px=side,
        doubts=() if verdict is None else verdict.reasons,
        simulated_from=metadata.get(SIMULATED_FROM),
    )


def usual_source(base_npz: Path) -> Source:
    """Return where counts come from if nothing is said: from the base data that have them.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    with open_npz(base_npz) as archive:
        is_normalized = metadata_of(archive).get("photon_scale") == "none"
        return MEASURED if "diffraction" in archive.members and not is_normalized else SIMULATED


def run_name(design: StudyDesign) -> str:
    """Return ``<UTC date>_<preset>_<design hash>``."""
    return f"{datetime.now(UTC):%Y-%m-%d}_{design.preset}_{design.digest}"


def faults_of_name(folder: Path, design: StudyDesign) -> list[str]:
    """Return a line if a folder is named for another design than it holds.

    A name without the hash of a design, such as ``reports/lab``, says nothing.
    """
    name = folder.resolve().name
    named_for = NAMED.fullmatch(name)
    if named_for is None or named_for["digest"] == design.digest:
        return []
    right = f"{named_for['date']}_{design.preset}_{design.digest}"
    return [
        f"this is design {design.digest}, and the folder {name} is named for design "
        f"{named_for['digest']}; rename it to {right}, or undo the change of {DESIGN_FILE}"
    ]


def require_own_name(folder: Path, design: StudyDesign) -> None:
    """Check that a folder is not named for another design than it holds.

    Raises
    ------
    InputError
        If it is; says what its name would be.
    """
    for fault in faults_of_name(folder, design):
        raise InputError(f"{folder / DESIGN_FILE}: {fault}")


def create_run(folder: str | Path, design: StudyDesign, base_npz: str | Path | None = None) -> Run:
    """Return the run of a folder, which is made if it does not exist yet.

    Parameters
    ----------
    folder
        Of the run.
    design
        What it is about; written to ``design.json``.
    base_npz
        File of the base data; copied into the folder.

    Raises
    ------
    InputError
        If the folder already belongs to another design.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> design = study.load_design("smoke", ["doses=[1.0e+3]"])
    >>> with TemporaryDirectory() as folder:
    ...     run = study.create_run(folder, design)
    ...     sorted(path.name for path in run.folder.iterdir())
    ['design.json']
    >>> run.condition(1e3, "dense").title
    'dense view, test split, 1000 photons per pattern'
    """
    folder = Path(folder)
    path = folder / DESIGN_FILE
    if path.exists():
        found = open_run(folder)
        require_own_name(folder, found.design)
        if found.design != design:
            raise InputError(
                f"{folder} holds a run of design {found.design.digest} ({found.design.preset}), "
                f"not {design.digest} ({design.preset}); choose another folder or remove it"
            )
        return found
    if base_npz:
        with atomic_path(folder / BASE_FILE) as temporary:
            shutil.copyfile(base_npz, temporary)
    _, *others = runs_within(design)
    for other in others:
        write_json(folder / other.folder / DESIGN_FILE, other.design.model_dump(mode="json"))
    write_json(path, design.model_dump(mode="json"))
    return Run(folder, design)


def open_run(folder: str | Path) -> Run:
    """Return the run of an existing folder.

    Parameters
    ----------
    folder
        Of a run that was made before, such as one below ``reports``.

    Raises
    ------
    InputError
        If there is no readable design in it, or its base data are missing or were changed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     made = study.create_run(folder, study.load_design("smoke"))
    ...     found = study.open_run(folder)
    >>> found.design.preset, found == made
    ('smoke', True)
    """
    folder = Path(folder)
    path = folder / DESIGN_FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: no {DESIGN_FILE} here; run notebook 00_design or `study run` first, "
            "or correct run_folder"
        )
    run = Run(folder, parse_design(read_json(path), str(path)))
    base_npz = run.base_npz
    if not base_npz or not run.design.base:
        return run
    if not base_npz.exists() and BASE_FILE in left_out(base_npz.parent):
        return run
    if not base_npz.is_file() or sha256_of(base_npz) != run.design.base.sha256:
        raise InputError(
            f"{base_npz} is missing or not the file that this run began with; put "
            f"{run.design.base.name} back there, or start another run"
        )
    return run


def left_out(folder: Path) -> frozenset[str]:
    """Return the arrays and networks that a published copy does not have; none of a run itself."""
    path = folder / PUBLISHED_FILE
    content = read_json(path) if path.is_file() else {}
    names = content.get("left_out") if isinstance(content, dict) else None
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name for name in names if str(name).endswith(ARRAYS))


def require_not_published(folder: Path, remedy: str) -> None:
    """Check that a folder is a run itself, not the copy of one that was made for others.

    Raises
    ------
    InputError
        If it is a copy; ends with what to do instead.
    """
    if (folder / PUBLISHED_FILE).is_file():
        raise InputError(f"{folder}: is a published copy; {remedy}")


def require_condition(parameters: NotebookParameters) -> None:
    """Check that the run of a notebook exists, and that it has the dose, the view and the arm.

    Only notebook 00 may make its run; lessons have none.

    Raises
    ------
    InputError
        If there is no such run, a link leads out of it, its design does not have them, or no arm
        of the name was compared.
    """
    if not isinstance(parameters, PhaseParameters):
        return
    folder = Path(parameters.run_folder)
    if isinstance(parameters, DesignParameters) and not (folder / DESIGN_FILE).is_file():
        return
    run = open_run(folder)
    require_no_link_out(folder)
    if isinstance(parameters, DatasetParameters):
        run.design.require_dose(parameters.dose)
    if isinstance(parameters, OverlapParameters):
        run.design.view(parameters.view)
    if isinstance(parameters, ExploreRunParameters):
        _require_arm(run, parameters)


def _require_arm(run: Run, parameters: ExploreRunParameters) -> None:
    """Check that an arm was compared; without its comparison there is nothing to look at."""
    condition = run.condition(parameters.dose, parameters.view, parameters.split)
    arms = [row["arm"] for row in read_scores(condition.folder("compare"))]
    if parameters.arm not in arms:
        raise InputError(
            f"arm {parameters.arm!r}: this condition has {', '.join(arms)}; choose one"
        )


def open_or_create(
    folder: str | Path, preset: str | None, base_npz: str | Path | None = None
) -> Run:
    """Return the run of a folder, made from a preset if the folder is new.

    Parameters
    ----------
    folder
        Of the run.
    preset
        As for :func:`study_lib.design.presets.load_design`; None: whatever the folder holds.
    base_npz
        File of the base data, if the object, probe and positions come from one.

    Raises
    ------
    InputError
        If the folder holds a run whose values are not the preset's, or of another base file, or
        none and no preset is given, or as for
        :func:`open_run` and :func:`study_lib.design.presets.load_design`.

    Examples
    --------
    The second call finds what the first one made; another preset is refused:

    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     made = study.open_or_create(folder, "smoke")
    ...     found = study.open_or_create(folder, "smoke")
    ...     try:
    ...         other = study.open_or_create(folder, "laptop")
    ...     except study.InputError as error:
    ...         print("refused" if "differs from laptop in" in str(error) else error)
    refused
    >>> found == made
    True
    """
    folder, base_npz = Path(folder), Path(base_npz) if base_npz else None
    if preset is not None and not (folder / DESIGN_FILE).exists():
        base = base_data(base_npz) if base_npz else None
        source = usual_source(base_npz) if base_npz else SIMULATED
        return create_run(folder, load_design(preset, base=base, source=source), base_npz)
    run = open_run(folder)
    if base_npz and (not run.design.base or run.design.base.sha256 != sha256_of(base_npz)):
        raise InputError(
            f"{folder} holds a run that does not start from {base_npz}; choose another run_folder"
        )
    given = run.design
    if preset is not None:
        given = load_design(preset, base=run.design.base, source=run.design.source)
    changed = differing_values(run.design, given)
    if changed:
        raise InputError(
            f"{folder} holds a run of preset {run.design.preset}, which differs from {preset} in "
            f"{', '.join(changed[:SHOWN])}{' ...' if len(changed) > SHOWN else ''}; choose another "
            "run_folder, or give preset None for the run as it is"
        )
    return run


def differing_values(design: StudyDesign, other: StudyDesign) -> list[str]:
    """Return the dotted names of the values in which two designs differ; the preset's is none."""
    one, two = (
        dotted(each.model_dump(mode="json", exclude={"preset"})) for each in (design, other)
    )
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
