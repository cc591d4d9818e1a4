"""The commands that bring data in and take them out."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from study_lib.data.formats.acquisition import PositionUnit
from study_lib.errors import InputError, StudyError

WrittenName = Literal[
    "ptychopinn", "ptychopinn-counts", "slac", "tike", "ptychi", "ptychodus", "cxi"
]
FormatName = Literal[WrittenName, "ptyd", "nxmx", "ptylab", "stack"]
Algorithm = Literal["solver", "LSQML"]
MODES_MAX = 20
EnergyOption = Annotated[
    float | None, typer.Option(help="Photon energy; kinetic energy with --electrons.")
]
WavelengthOption = Annotated[float | None, typer.Option(help="Wavelength, in place of the energy.")]
ElectronsOption = Annotated[
    bool, typer.Option("--electrons", help="Electrons, by their relativistic wavelength.")
]
DistanceOption = Annotated[float | None, typer.Option(help="Object to detector.")]
DetectorPixelOption = Annotated[float | None, typer.Option(help="Pixel of the detector.")]
ObjectPixelOption = Annotated[
    float | None,
    typer.Option(
        help="Pixel of the object, of frames as they are in the file, if not from the other three."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("import")(import_)
    app.command("export")(export)
    app.command()(simulate)
    app.command()(example)


def import_(
    source: Annotated[Path, typer.Argument(help="Measured data.")],
    target: Annotated[Path, typer.Argument(help="The NPZ to write: a data set and base data.")],
    format_name: Annotated[
        FormatName | None,
        typer.Option("--format", help="Format of the source; default: recognised by its content."),
    ] = None,
    domain: Annotated[
        Literal["amplitude", "counts", "normalized"] | None,
        typer.Option(
            help="What the patterns are: counts, their roots, or amplitudes without a photon "
            "scale; before what the file says."
        ),
    ] = None,
    axes: Annotated[
        Literal["nhw", "hwn"] | None,
        typer.Option(help="Scan first or last, where the shape leaves it open (PtychoPINN)."),
    ] = None,
    zero_frequency: Annotated[
        Literal["centre", "corner"] | None,
        typer.Option(help="Where it lies in the patterns, if not where the format says."),
    ] = None,
    flip_y: Annotated[bool, typer.Option("--flip-y", help="Turn the sign of y.")] = False,
    flip_x: Annotated[bool, typer.Option("--flip-x", help="Turn the sign of x.")] = False,
    swap_xy: Annotated[
        bool, typer.Option("--swap-xy", help="Exchange x and y, before any sign is turned.")
    ] = False,
    keep_all: Annotated[
        bool,
        typer.Option(
            "--keep-all",
            help="Mask and leave out nothing that only looks like a fault: constant, dead, hot "
            "and flickering pixels, spikes, saturation, frames far brighter or almost blank.",
        ),
    ] = False,
    drop_bad_frames: Annotated[
        bool,
        typer.Option(
            "--drop-bad-frames",
            help="Leave out frames with NaN, infinite, negative or no counts, or no position.",
        ),
    ] = False,
    leave_out: Annotated[
        str | None,
        typer.Option(
            help="Frames to leave out, by the numbers that messages have, from 0: 3,17,40-52."
        ),
    ] = None,
    patterns: Annotated[
        Path | None, typer.Option(help="Diffraction file of a Ptychodus product.")
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="File of positions, row and column of each frame, for formats that have none; "
            "FILE or FILE:NAME."
        ),
    ] = None,
    position_unit: Annotated[
        PositionUnit | None,
        typer.Option(help="Unit of the positions, before that of the format; px: object pixels."),
    ] = None,
    energy_ev: EnergyOption = None,
    wavelength_m: WavelengthOption = None,
    electrons: ElectronsOption = False,
    distance_m: DistanceOption = None,
    detector_pixel_um: DetectorPixelOption = None,
    object_pixel_nm: ObjectPixelOption = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Bad pixels, of all frames or of each: FILE or FILE:NAME (.npy, .npz, HDF5, "
            "TIFF); True or not zero is bad. Added to those of the file."
        ),
    ] = None,
    saturation: Annotated[
        float | None,
        typer.Option(help="Counts of so many or more are no valid counts, in their frame alone."),
    ] = None,
    dark: Annotated[
        str | None,
        typer.Option(
            help="Dark frames: FILE or FILE:NAME. Their mean is the background of the model, "
            "before that in the file; nothing is subtracted."
        ),
    ] = None,
    crop: Annotated[
        int | None, typer.Option(min=2, help="Side to crop frames to, about the zero frequency.")
    ] = None,
    bin_: Annotated[
        int | None,
        typer.Option("--bin", min=1, help="Detector pixels to sum along each axis, after --crop."),
    ] = None,
    pad: Annotated[
        int | None,
        typer.Option(min=2, help="Side to pad frames to, after --bin; what is added is bad."),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(help="What to leave out of the file: object, probe or object,probe."),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(help="Which scan of a file that has several; all: as one, of one object."),
    ] = None,
    allow_links: Annotated[
        Path | None,
        typer.Option(help="Folder in which files that an HDF5 file links to may lie."),
    ] = None,
    algorithm: Annotated[
        Algorithm | None,
        typer.Option(help="Finds object and probe, where the source lacks one; default: solver."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="At most; it stops where it has converged; default: 1000."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Order of the batches; default: 1011.")
    ] = None,
    modes: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|auto",
            help="Incoherent modes of the probe; auto: as many as held-out counts ask for.",
        ),
    ] = "1",
    refine_positions: Annotated[
        bool, typer.Option("--refine-positions", help="Find positions near the given ones, too.")
    ] = False,
    refine_background: Annotated[
        bool,
        typer.Option(
            "--refine-background", help="Find counts that are in every pattern alike, too."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also by the other algorithm and from half the data.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
) -> None:
    """Convert measured data; reconstruct object and probe if the source lacks one of them.

    What is known of the scan and how well it is explained is printed, with a verdict: good,
    doubtful or wrong, and why. A picture lies beside the target, NAME.png. If the verdict is
    wrong, both are called NAME.doubtful, and the exit code is 1.

    --check tells what the patterns support: both algorithms, and each half of the patterns,
    reconstruct the object; R-factors and correlations by frequency go to a .check.json beside the
    target.

    Example: study import scan.cxi scan.npz --check
    """
    from study_lib.data.datasets import write_dataset
    from study_lib.data.formats.acquisition import ReadChoices
    from study_lib.data.formats.geometry import GivenLengths
    from study_lib.data.formats.registry import read_file
    from study_lib.figures.common import save_figure
    from study_lib.phases.blind import Unknowns
    from study_lib.phases.import_data import described, imported, preview_of, with_check

    good, doubtful = _files_of(source, target, overwrite=overwrite)
    choices = ReadChoices(
        domain=domain,
        axes=axes,
        zero_frequency=zero_frequency,
        flip_y=flip_y,
        flip_x=flip_x,
        swap_xy=swap_xy,
        drop_bad_frames=drop_bad_frames,
        leave_out=_ranges_of(leave_out),
        keep_all=keep_all,
        lengths=GivenLengths(
            energy_ev=energy_ev,
            wavelength_m=wavelength_m,
            electrons=electrons,
            distance_m=distance_m,
            detector_pixel_um=detector_pixel_um,
            object_pixel_nm=object_pixel_nm,
        ),
        positions=positions,
        position_unit=position_unit,
        mask=mask,
        saturation=saturation,
        dark=dark,
        crop=crop,
        bin_=bin_,
        pad=pad,
        ignore=_ignored(ignore),
        entry=entry,
        links_below=_existing_folder(allow_links),
    )
    acquisition, name = read_file(source, choices, format_name, patterns)
    _warn(source, acquisition.remarks)
    if check and (acquisition.amplitudes is None or acquisition.is_normalized):
        raise InputError(
            f"{source}: --check reconstructs from counts, and it has none; leave --check out"
        )
    if acquisition.object_ is None or acquisition.probe is None:
        if acquisition.object_ is not None:
            _warn(source, ["without a probe its object is not used"])
    else:
        changed = (modes, refine_positions, refine_background) != ("1", False, False)
        if changed or (not check and (algorithm, epochs, seed) != (None, None, None)):
            remark = (
                "it has object and probe: --algorithm, --epochs, --seed, --modes and --refine-... "
                "change nothing; --ignore object,probe reconstructs them"
            )
            _warn(source, [remark])
    how: dict[str, Any] = {
        "algorithm": algorithm or "solver",
        "epochs": epochs or 1000,
        "seed": 1011 if seed is None else seed,
    }
    unknowns = Unknowns(_modes_of(modes), refine_positions, refine_background)
    failure: StudyError | None = None
    with _bar() as progress:
        found = imported(acquisition, choices, **how, unknowns=unknowns, progress=progress)
        if check:
            try:
                found = with_check(found, acquisition, **how, unknowns=unknowns, progress=progress)
            except StudyError as error:  # raised below, once the data set is there
                failure = error
    _warn(source, found.acquisition.remarks[len(acquisition.remarks) :])
    wrong = found.verdict.level == "wrong"
    files = doubtful if wrong else good
    notes = write_dataset(files.data, found.acquisition, name)
    _warn(files.data, map(str, notes))
    save_figure(preview_of(found, title=f"{source.name}: {found.verdict.level}"), files.preview)
    # What an earlier import left under these names is not about this one.
    for path in (files.report, *(() if wrong else doubtful)):
        path.unlink(missing_ok=True)
    probe, object_ = found.acquisition.require("probe", "object_")
    in_modes = f" in {len(probe)} modes" if probe.ndim == 3 else ""
    print(
        f"{files.data}: from {name}: object {object_.shape[0]} x {object_.shape[1]}, probe "
        f"{probe.shape[-1]} x {probe.shape[-1]}{in_modes}, {found.facts.patterns} positions"
        f"{'' if found.fit is not None else ', no patterns'}; picture {files.preview.name}"
    )
    for line in described(found):
        print(f"  {line}")
    if found.report is not None:
        _write_report(found.report, files.report)
    if failure is not None:
        raise failure
    if wrong:
        raise typer.Exit(1)


def export(
    source: Annotated[Path, typer.Argument(help="A data set or base data, as DATA-001 has it.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    format_name: Annotated[WrittenName, typer.Option("--format", help="Format to write.")],
    energy_ev: EnergyOption = None,
    wavelength_m: WavelengthOption = None,
    electrons: ElectronsOption = False,
    distance_m: DistanceOption = None,
    detector_pixel_um: DetectorPixelOption = None,
    object_pixel_nm: ObjectPixelOption = None,
) -> None:
    """Write a data set in the format of another program; lengths come from the file or the flags.

    ptychopinn has amplitudes, ptychopinn-counts and slac have counts; ptychi is a pair of files,
    NAME_dp.hdf5 and NAME_para.hdf5; ptychodus is a product and NAME_diffraction.h5.
    """
    from study_lib.data.datasets import read_dataset
    from study_lib.data.formats.geometry import GivenLengths, resolved_geometry
    from study_lib.data.formats.registry import not_representable, writer_for

    write = writer_for(format_name, target, source)
    acquisition = read_dataset(source)
    given = GivenLengths(
        energy_ev=energy_ev,
        wavelength_m=wavelength_m,
        electrons=electrons,
        distance_m=distance_m,
        detector_pixel_um=detector_pixel_um,
        object_pixel_nm=object_pixel_nm,
    )
    geometry, remarks = resolved_geometry(
        target, acquisition.geometry, given, acquisition.side_px()
    )
    _warn(source, remarks)
    acquisition = replace(acquisition, geometry=geometry)
    try:
        write(target, acquisition)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    left_out = not_representable(format_name, acquisition)
    if left_out:
        zeros = "; bad pixels are zeros there" if "bad pixels" in left_out else ""
        remark = f"format {format_name} has no place for {', '.join(left_out)}{zeros}"
        _warn(target, [f"{remark}; keep {source}"])
    print(f"{target}: {len(acquisition.positions_px)} positions, format {format_name}")


def simulate(
    source: Annotated[Path, typer.Argument(help="Base data with counts, as import writes them.")],
    target: Annotated[Path, typer.Argument(help="The NPZ to write.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the counts.")] = 1007,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a measurement again with simulated counts of its own object, probe and positions.

    It is what the measurement would be if nothing but photon noise were between it and its model.
    A study on it, held against the study on the measured counts (study report RUN --against OTHER),
    says which results the model flatters, and by how much.

    Example: study simulate star.npz star-simulated.npz
    """
    from study_lib.data.datasets import write_dataset
    from study_lib.figures.common import save_figure
    from study_lib.phases.import_data import described, preview_of
    from study_lib.phases.simulated_base import with_simulated_counts

    good, doubtful = _files_of(source, target, overwrite=overwrite)
    found = with_simulated_counts(source, seed)
    wrong = found.verdict.level == "wrong"
    files = doubtful if wrong else good
    name = f"simulated counts of {source.name}"
    write_dataset(files.data, found.acquisition, name)
    save_figure(preview_of(found, title=name), files.preview)
    print(f"{files.data}: {name}, {found.facts.patterns} positions; picture {files.preview.name}")
    for line in described(found):
        print(f"  {line}")
    if wrong:
        raise typer.Exit(1)


def example(
    name: Annotated[Literal["star"], typer.Argument(help="Which data.")],
    folder: Annotated[Path, typer.Argument(help="Where they go, with their licence.")] = Path(),
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A copy of the file, where there is no network."),
    ] = None,
) -> None:
    """Get measured data to try the study on: star, a Siemens star measured by X-rays (3 MB).

    The file is fetched from the public repository that has it, and counts only with the SHA-256
    that this program knows; its licence is put beside it.
    """
    from study_lib.data.examples import EXAMPLES, fetched_example

    target, licence = fetched_example(name, folder, source)
    print(f"{target}: {EXAMPLES[name].about}; see {licence.name}")
    print(f"next: study import {target} {target.with_name(f'{name}.npz')}")


def _ignored(words: str | None) -> frozenset[str]:
    found = frozenset(words.split(",")) if words else frozenset()
    if not found <= {"object", "probe"}:
        raise InputError(f"--ignore {words}: choose object, probe or object,probe")
    return found


def _ranges_of(text: str | None) -> tuple[range, ...]:
    """Return numbers and ranges of them, both ends included, as ranges."""
    found = []
    for word in text.split(",") if text is not None else ():
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(
                f"--leave-out {text}: found {word!r}; give numbers of frames and ranges of them, "
                "3,17,40-52"
            )
        found.append(range(first, last + 1))
    return tuple(found)


def _existing_folder(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise InputError(f"--allow-links {folder}: no such folder; name the folder of the files")
    return folder


def _warn(source: Path, remarks: Iterable[str]) -> None:
    for remark in remarks:
        print(f"study: warning: {source}: {remark}", file=sys.stderr)


def _modes_of(text: str) -> int | Literal["auto"]:
    """Return how many modes a text asks for."""
    if text == "auto":
        return "auto"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MODES_MAX:
        raise InputError(f"--modes {text}: give a number from 1 to {MODES_MAX}, or auto")
    return int(text)


class _Files(NamedTuple):
    """What an import writes under one name."""

    data: Path
    preview: Path
    report: Path

    @classmethod
    def named(cls, data: Path) -> "_Files":
        """Return the files of a data set: a picture and the report of a check beside it."""
        return cls(data, data.with_suffix(".png"), data.with_suffix(".check.json"))


def _files_of(source: Path, target: Path, *, overwrite: bool) -> tuple[_Files, _Files]:
    """Return what a good import writes and what a wrong one does.

    None of it may be the source, or be there unless it may be replaced.
    """
    if target.suffix != ".npz":
        raise InputError(
            f"{target}: what an import writes is an NPZ file; end its name in .npz, and take "
            "`study export` for other formats"
        )
    if target.resolve() == source.resolve():
        raise InputError(f"{target}: this is the source; give the base file another name")
    if not target.resolve().parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; make it first")
    both = _Files.named(target), _Files.named(target.with_suffix(".doubtful.npz"))
    paths = [path for files in both for path in files]
    if source.resolve() in {path.resolve() for path in paths}:
        raise InputError(
            f"{target}: {source} is what an import of that name may write; give another name"
        )
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        names = ", ".join(map(str, there))
        raise InputError(f"{names}: already there; give another name, or replace with --overwrite")
    return both


def _write_report(report: Mapping[str, Any], path: Path) -> None:
    """Print and write how far another algorithm and two halves of the patterns agree."""
    from study_lib.files import write_json
    from study_lib.scores.frc import NEVER_BELOW

    write_json(path, report)
    for name, found in report["algorithms"].items():
        print(f"  {name}: R-factor {found['r_factor']:.4f}, {found['cpu_s']:.0f} CPU s")
    levels = {"half": "1/2", "seventh": "1/7", "half_bit": "half-bit", "one_bit": "1-bit"}
    for name, crossings in (
        ("between_algorithms", ("half",)),
        ("between_halves", ("seventh", "half_bit", "one_bit")),
    ):
        if why := report[name].get("why_none"):
            print(f"  {name.replace('_', ' ')}: nothing to compare, {why}")
            continue
        for crossing in crossings:
            at = report[name][f"crossing_{crossing}"]
            outcome = report[name][f"crossing_{crossing}_outcome"]
            said = (
                "not below it up to Nyquist"
                if outcome == NEVER_BELOW
                else f"no resolution, {outcome}"
                if at is None
                else f"falls below at {at:.2f} of Nyquist ({1 / at:.1f} px half period)"
            )
            about = name.replace("_", " ")
            print(f"  ring correlation {about}, threshold {levels[crossing]}: {said}")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int, float], None]]:
    """Give a block a progress bar for each algorithm that it runs, one after the other."""
    from tqdm import tqdm

    bars: list[Any] = []

    def progress(name: str, epoch: int, epochs: int, loss: float) -> None:
        if epoch == 1 or not bars:
            for ended in bars:
                ended.close()
            bars.append(tqdm(total=epochs, desc=name, unit="epoch", mininterval=1))
        bars[-1].set_postfix_str(f"loss {loss:.4g}", refresh=False)
        bars[-1].update(epoch - bars[-1].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()
