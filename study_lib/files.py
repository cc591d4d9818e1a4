"""Files that are either whole or absent: atomic writes, hashes, merged manifests."""

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from filelock import FileLock

from study_lib.errors import DISK_FULL, DiskFullError, InputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``target`` only if the block succeeds.

    Raises
    ------
    DiskFullError
        If there is no room; what was written is removed, an older file stays.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix
        )
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if error.errno in DISK_FULL:
            size = temporary.stat().st_size if temporary else 0
            raise disk_full(target, f"{size} bytes went in") from error
        raise
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def disk_full(target: Path, what: str) -> DiskFullError:
    """Return the error of a file that has no room."""
    return DiskFullError(
        f"{target}: the disk is full ({what}); free some space, then the same command goes on"
    )


def require_room(target: Path, needed: int) -> None:
    """Check before writing that so many bytes have room beside ``target``.

    Raises
    ------
    DiskFullError
        If they have not.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise disk_full(target, f"{needed} bytes are needed, {free} are free")


def require_writable(folder: Path) -> None:
    """Make a folder if need be, and write in it once: what cannot be kept should not be computed.

    Raises
    ------
    OSError
        What the system says to that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def require_no_link_out(folder: Path) -> None:
    """Check that nothing written in a folder, which somebody else may have made, leaves it.

    Raises
    ------
    InputError
        If a link in it leads out of it, or to nothing.
    """
    inside = folder.resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(
                    f"{path}: is a link to {path.resolve()}, outside {inside}; nothing was "
                    "written; put the files themselves there, or remove the link"
                )


def open_to_append(path: Path) -> TextIO:
    """Open a text file to add to its end; its folder is made if need be.

    Raises
    ------
    InputError
        If it is a link: who made it chose where the text goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path}: is a link; nothing was written through it; remove it") from None
    return os.fdopen(handle, "a", encoding="utf-8", errors="backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ASCII JSON with sorted keys, in one piece."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """Return ASCII JSON with sorted keys: one text for one content."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text + "\n"


def read_text(path: Path, kind: str = "text") -> str:
    """Return a text that a phase or a run has written; ``kind`` is what messages call it.

    Raises
    ------
    InputError
        If the file is missing or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the phase that writes it first") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not readable as {kind} ({error}); write it again") from None


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(read_text(path, "JSON"))
    except (ValueError, RecursionError) as error:  # no JSON, no text, endless digits, endless depth
        raise InputError(f"{path}: not readable as JSON ({error}); write it again") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the columns of all; what does not exist stays empty, so do no rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table as texts.

    Raises
    ------
    InputError
        If the file is missing or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the phase that writes it first") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({error}); write it again") from None


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and a JSON text under ``_metadata``, readable without pickle (DATA-002)."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=True, allow_nan=False)
    require_room(path, sum(array.nbytes for array in arrays.values()))
    with atomic_path(path) as temporary:
        np.savez(temporary, **dict(arrays), _metadata=np.array(text), allow_pickle=False)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(paths: list[Path], root: Path) -> dict[str, str]:
    """Return POSIX paths relative to ``root`` with the SHA-256 of each file."""
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in sorted(paths)}


def merge_record(manifest: Path, key: str, record: Mapping[str, Any]) -> None:
    """Add or replace one job's record in a manifest; the records of other jobs stay."""
    if manifest.exists():
        manifest_jobs(manifest)

    def add(content: dict[str, Any]) -> None:
        content.setdefault("jobs", {})[key] = dict(record)

    update_json(manifest, add)


def manifest_jobs(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a manifest by job.

    Raises
    ------
    InputError
        If the file is missing or is not a manifest.
    """
    content = read_json(manifest)
    jobs = content.get("jobs", {}) if isinstance(content, dict) else None
    if not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
        raise InputError(f"{manifest}: not a manifest of this study; run its phase again")
    return jobs


def update_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Read, change and write one JSON file while no other process does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        content = read_json(path) if path.exists() else {}
        change(content)
        write_json(path, content)
