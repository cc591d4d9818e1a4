"""The formats the study reads and writes, by name, and how a file is recognised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from study_lib.data.archive import open_npz
from study_lib.data.formats.acquisition import Acquisition, ReadChoices
from study_lib.data.formats.beside import TIFF
from study_lib.data.formats.cxi import read_cxi, write_cxi
from study_lib.data.formats.nexus import nexus_entries, read_nexus, read_stack
from study_lib.data.formats.ptychi import pair_of, read_ptychi, write_ptychi
from study_lib.data.formats.ptychodus import patterns_path, read_ptychodus, write_ptychodus
from study_lib.data.formats.ptychopinn import (
    read_ptychopinn,
    write_ptychopinn,
    write_ptychopinn_counts,
    write_slac,
)
from study_lib.data.formats.ptypy import read_ptyd, read_ptylab
from study_lib.data.formats.tike import read_tike, write_tike
from study_lib.data.hdf5 import is_hdf5, open_hdf5
from study_lib.errors import InputError

Reader = Callable[[Path, ReadChoices], Acquisition]
Writer = Callable[[Path, Acquisition], None]


@dataclass(frozen=True)
class Format:
    """One layout: how it is read and written, which files writing makes, what it cannot hold."""

    reader: Reader
    writer: Writer | None
    suffixes: tuple[str, ...]
    outputs: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)
    no_place_for: tuple[str, ...] = ()


MODES = "probe modes but the strongest"
BACKGROUND = "background"
EACH_MASK = "bad pixels of single patterns"
LENGTHS = ("energy", "distance", "detector pixel", "object pixel")
FORMATS: Mapping[str, Format] = {
    "ptychopinn": Format(read_ptychopinn, write_ptychopinn, (".npz",), no_place_for=(MODES,)),
    "ptychopinn-counts": Format(
        read_ptychopinn, write_ptychopinn_counts, (".npz",), no_place_for=(MODES,)
    ),
    "slac": Format(read_ptychopinn, write_slac, (".npz",), no_place_for=(MODES, BACKGROUND)),
    "tike": Format(
        read_tike,
        write_tike,
        (".npz", ".bz2"),
        no_place_for=("object", "bad pixels", "indices", BACKGROUND, *LENGTHS),
    ),
    "ptychi": Format(
        read_ptychi,
        write_ptychi,
        (".hdf5", ".h5"),
        pair_of,
        no_place_for=("energy", "distance", "detector pixel", BACKGROUND),
    ),
    "ptychodus": Format(
        read_ptychodus,
        write_ptychodus,
        (".h5", ".hdf5"),
        lambda path: (path, patterns_path(path)),
        no_place_for=(EACH_MASK, BACKGROUND),
    ),
    "cxi": Format(read_cxi, write_cxi, (".cxi", ".h5")),
    "ptyd": Format(read_ptyd, None, (".ptyd",)),
    "nxmx": Format(read_nexus, None, (".h5", ".nxs")),
    "ptylab": Format(read_ptylab, None, (".hdf5", ".h5")),
    "stack": Format(read_stack, None, (".tif", ".tiff", ".npy")),
}
WITH_POSITIONS_BESIDE = ("nxmx", "stack")
WITH_ENTRIES = ("cxi", "nxmx")
WRITABLE = tuple(name for name, entry in FORMATS.items() if entry.writer)


def recognised(path: Path, links_below: Path | None = None) -> str:
    """Return the name of a file's format, by what is in it.

    Parameters
    ----------
    path
        The file.
    links_below
        The folder in which files that an HDF5 file links to may lie.

    Raises
    ------
    InputError
        If the file is missing, damaged, of no format known here, or of one that is known and not
        read; then it says what to do.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of measured data")
    if path.suffix == ".bz2":
        return "tike"
    if path.suffix == ".mat" or _begins_as(path, b"MATLAB"):
        raise InputError(
            f"{path}: a MATLAB file, whose layout is that of its program: read it with "
            "scipy.io.loadmat (or h5py, if it was saved as v7.3) and write diffraction, xcoords "
            "and ycoords with numpy.savez, as the guide has it"
        )
    if path.suffix.lower() in (*TIFF, ".npy"):
        return "stack"
    if not is_hdf5(path) and path.suffix != ".npz" and not _begins_as(path, b"PK"):
        raise InputError(
            f"{path}: neither HDF5 nor NPZ by its first bytes, whatever its name; write or fetch "
            "it again, or give the file of measured data"
        )
    found = _in_hdf5(path, links_below) if is_hdf5(path) else _in_npz(path)
    if found is None:
        raise InputError(
            f"{path}: no format is recognised by what is in it; say which with --format, one of "
            f"{', '.join(FORMATS)}"
        )
    return found


def read_file(
    path: Path, choices: ReadChoices, name: str | None = None, patterns: Path | None = None
) -> tuple[Acquisition, str]:
    """Return the acquisition in a file, and the name of its format.

    Parameters
    ----------
    path
        The file.
    choices
        What the user says about it.
    name
        Its format; default: recognised.
    patterns
        The file with the patterns that belong to a Ptychodus product.

    Raises
    ------
    InputError
        If it cannot be read, or a choice does not apply to its format.
    """
    name = name or recognised(path, choices.links_below)
    entry = _entry(name)
    if choices.positions and name not in WITH_POSITIONS_BESIDE:
        raise InputError(f"{path}: --positions: format {name} has positions of its own")
    if choices.entry and name not in WITH_ENTRIES:
        raise InputError(f"{path}: --entry: a file of format {name} holds one scan")
    if choices.axes and entry.reader is not read_ptychopinn:
        raise InputError(f"{path}: --axes is for PtychoPINN files; format {name} fixes the axes")
    if patterns is None:
        return entry.reader(path, choices), name
    if name != "ptychodus":
        raise InputError(f"{path}: --patterns is for a Ptychodus product, this is {name}")
    return read_ptychodus(path, choices, patterns), name


def writer_for(name: str, target: Path, source: Path) -> Writer:
    """Return the writer of a format after checking where it would write.

    Raises
    ------
    InputError
        If the format is not written, the name does not end as its files do, the folder does not
        exist, or the source would be overwritten.
    """
    entry = _entry(name)
    if entry.writer is None:
        raise InputError(f"format {name!r} is read only; choose one of {', '.join(WRITABLE)}")
    if target.suffix not in entry.suffixes:
        raise InputError(
            f"{target}: a file of format {name} ends in {' or '.join(entry.suffixes)}; rename it"
        )
    if not target.resolve().parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; make it first")
    for output in entry.outputs(target):
        if output.resolve() == source.resolve():
            raise InputError(f"{output}: this is the source; give the copy another name")
    return entry.writer


def not_representable(name: str, acquisition: Acquisition) -> list[str]:
    """Return in words what of an acquisition a format has no place for.

    Raises
    ------
    InputError
        If there is no format of this name.
    """
    geometry, bad = acquisition.geometry, acquisition.bad_pixels
    there = {
        "object": acquisition.object_ is not None,
        MODES: acquisition.probe is not None and acquisition.probe.ndim == 3,
        BACKGROUND: acquisition.background is not None,
        EACH_MASK: bad is not None and bad.ndim == 3,
        "bad pixels": bad is not None and bool(bad.any()),
        "indices": acquisition.scan_index is not None,
        "energy": geometry.photon_energy_ev is not None,
        "distance": geometry.detector_distance_m is not None,
        "detector pixel": geometry.detector_pixel_m is not None,
        "object pixel": geometry.object_pixel_m is not None,
    }
    return [what for what in _entry(name).no_place_for if there[what]]


def _entry(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"format {name!r} not found; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _begins_as(path: Path, beginning: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _in_hdf5(path: Path, links_below: Path | None) -> str | None:
    with open_hdf5(path, links_below) as file:
        names = set(file.names("/"))
        if "content" in names and {"obj", "probe"} & set(file.names("/content")):
            raise InputError(
                f"{path}: a reconstruction of ptypy, without the patterns that it came from; give "
                "the prepared data, .ptyd"
            )
        if any(name.startswith("entry_") for name in names):
            return "cxi"
        if {"meta", "chunks"} <= names:
            return "ptyd"
        if "probe_position_indexes" in names:
            return "ptychodus"
        if "ptychogram" in names:
            return "ptylab"
        if names & {"dp", "probe_position_x_m"}:
            return "ptychi"
        return "nxmx" if nexus_entries(file) else None


def _in_npz(path: Path) -> str | None:
    with open_npz(path, ignore=["_metadata"]) as archive:
        names = set(archive.members)
    if {"data", "scan"} <= names:
        return "tike"
    return "ptychopinn" if names & {"xcoords", "xcoords_start"} else None
