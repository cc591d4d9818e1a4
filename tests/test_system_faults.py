"""Full disks, read-only folders, odd paths, other clocks: one message, nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from study_lib.engine import run_plan
from study_lib.errors import DiskFullError
from study_lib.files import atomic_path, write_npz, write_text
from study_lib.plan import plan_jobs
from study_lib.presets import load_design
from study_lib.records import Job, recorded
from study_lib.runs import base_data, create_run, run_name

pytestmark = pytest.mark.slow
STUDY = (sys.executable, "-m", "study_lib")
OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")
# A file system of $2 bytes at $1, if asked read-only; then the command, then what is left there.
SCRIPT = """
place=$1; options=$2; shift 2
mount -t tmpfs -o size="$options" tmpfs "$place"
printf old > "$place/old.txt"
if [ "$READ_ONLY" = yes ]; then mount -o remount,ro "$place"; fi
"$@"
code=$?
echo "LEFT $(cd "$place" && find . -type f | sort | tr '\\n' ' ')$(cat "$place/old.txt")"
exit $code
"""


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    check = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
    )
    return check.returncode == 0


needs_mount = pytest.mark.skipif(
    not may_mount(), reason="this system lets nobody mount a file system of its own"
)


def on_small_disk(folder: Path, size: str, *words: str, read_only: bool = False):
    """Run the command line with a small file system at a folder; return what it says and leaves."""
    folder.mkdir()
    result = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", SCRIPT, "sh", str(folder), size, *STUDY, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        env=os.environ | {"READ_ONLY": "yes" if read_only else "no"},
        timeout=120,
    )
    return result.returncode, result.stderr, result.stdout.rsplit("LEFT ", 1)[-1].strip()


@needs_mount
def test_an_array_without_room_is_refused_with_the_bytes_it_needs(tmp_path, base_file):
    source, _ = base_file(rows_px=400.0)
    target = tmp_path / "small"

    code, error, left = on_small_disk(target, "64k", "import", str(source), str(target / "new.npz"))

    assert code == 1
    assert "new.npz: the disk is full" in error
    assert "bytes are needed" in error
    assert "free some space" in error
    assert left == "./old.txt old"


@needs_mount
def test_a_disk_that_fills_up_while_writing_keeps_whole_files_only(tmp_path):
    target = tmp_path / "small"

    code, error, left = on_small_disk(
        target, "64k", "params", "write", "--folder", str(target / "parameters")
    )

    assert code == 1
    assert "the disk is full" in error
    assert "Traceback" not in error
    *files, old = left.split()
    assert old == "old"
    assert files
    assert not any(Path(name).name.startswith(".") for name in files)


@needs_mount
def test_a_run_on_a_full_disk_says_so(tmp_path):
    target = tmp_path / "small"

    code, error, left = on_small_disk(
        target, "8k", "run", "--preset", "smoke", "--reports", str(target)
    )

    assert code == 1
    assert "the disk is full" in error or "free some space" in error
    assert "Traceback" not in error
    assert left.endswith("old")


@needs_mount
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--preset", "smoke", "--reports", "{place}"),
        ("generate", "--preset", "smoke", "--output-root", "{place}/C"),
        ("params", "write", "--folder", "{place}/p"),
    ],
)
def test_a_read_only_folder_stops_a_command_before_it_works(words, tmp_path):
    target = tmp_path / "fixed"

    code, error, left = on_small_disk(
        target, "1m", *(word.format(place=target) for word in words), read_only=True
    )

    assert code == 2, error
    assert "Read-only file system" in error
    assert "choose a folder that can be written" in error
    assert left == "./old.txt old"


def test_a_write_that_finds_no_room_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("study_lib.files.os.fsync", no_room)
    with pytest.raises(DiskFullError, match=r"a\.json: the disk is full \(3 bytes went in\)"):
        write_text(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_that_are_larger_than_the_disk_are_not_begun(tmp_path):
    endless = np.broadcast_to(np.float32(0), (2**50,))

    with pytest.raises(DiskFullError, match=f"{2**52} bytes are needed"):
        write_npz(tmp_path / "a.npz", {"endless": endless}, {})

    assert list(tmp_path.iterdir()) == []


def test_another_fault_of_the_system_stays_what_it_is(tmp_path):
    with (
        pytest.raises(OSError, match="cable") as caught,
        atomic_path(tmp_path / "a"),
    ):
        raise OSError(errno.EIO, "cable")

    assert not isinstance(caught.value, DiskFullError)
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_the_system_is_said(tmp_path):
    result = subprocess.run(
        [*STUDY, "params", "write", "--folder", "x" * 300],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert result.returncode == 2
    assert "choose a shorter path" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_lives_in_any_folder_and_from_a_linked_base(tmp_path, base_file):
    """Spaces, letters of many languages, quotes, more than 200 characters, long temporary paths."""
    source, _ = base_file()
    linked = tmp_path / "linked base.npz"
    linked.symlink_to(source)
    parts = ["Ordner mit Leerzeichen", "数据 и данные", "it's 'quoted' & $HOME", "x" * 120]
    folder = tmp_path.joinpath(*parts) / "run"
    design = load_design("smoke", ["patch_size_px=16"], base_data(linked))
    create_run(folder, design, linked)
    wanted = ("00_design", "01_dataset")
    jobs = [job for job in plan_jobs(design, "base.npz") if job.notebook in wanted]
    long_place = tmp_path / ("t" * 90)
    long_place.mkdir()

    said = []
    previous = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(long_place)
    try:
        run_plan(folder, jobs, 2, said.append)
    finally:
        if previous is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = previous

    assert len(str(folder)) > 200
    assert all((folder / job.done).is_file() for job in jobs), said


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_times_and_names_are_those_of_utc_in_every_zone(zone, tmp_path):
    text = (
        "from study_lib.records import utc_now; from study_lib.runs import run_name;"
        "from study_lib.presets import load_design;"
        "print(utc_now(), run_name(load_design('smoke')))"
    )
    before = time.time()
    result = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TZ": zone},
    )
    stamp, name = result.stdout.split()

    expected = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))
    later = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    assert stamp.endswith("+00:00")
    assert expected <= stamp[:16] <= later
    assert name[:10] in (expected[:10], later[:10])
    assert name.removeprefix(name[:10]) == run_name(load_design("smoke"))[10:]


def test_durations_do_not_follow_a_clock_that_is_set_back(tmp_path, monkeypatch):
    real = time.time
    job = Job(tmp_path / "manifest.json", "a", tmp_path, {})
    with recorded(job):
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        time.sleep(0.05)

    record = json.loads((tmp_path / "manifest.json").read_text())["jobs"]["a"]
    assert 0.05 <= record["wall_s"] < 30
