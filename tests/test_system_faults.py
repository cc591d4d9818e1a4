"""Full disks, read-only folders, odd paths, other clocks: one message, nothing half-written."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from study_lib.design.presets import load_design
from study_lib.errors import DiskFullError
from study_lib.files import atomic_path, read_json, write_npz
from study_lib.phases.records import Work, recorded
from study_lib.runs.run import run_name

pytestmark = pytest.mark.slow
STUDY = (sys.executable, "-m", "study_lib")
# The command line, in which one function says that it was called.
WATCHED = """
import sys
from pkgutil import resolve_name
owner, name = sys.argv.pop(1).rsplit(".", 1)
def work(*_, **__):
    print("WORKED", file=sys.stderr)
    raise SystemExit(99)
setattr(resolve_name(owner), name, work)
from study_lib.cli.main import main
main()
"""
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


def on_small_disk(
    folder: Path, size: str, *words: str, read_only: bool = False, command: tuple[str, ...] = STUDY
):
    """Run the command line with a small file system at a folder; return what it says and leaves."""
    folder.mkdir()
    result = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", SCRIPT, "sh", str(folder), size, *command, *words],
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

    assert code == 2
    assert "they write about" in error
    assert "GiB left" in error
    assert "give --reports a folder on a larger disk" in error
    assert "Traceback" not in error
    assert left == "./old.txt old", "refused before anything is written"


PHASES = "--phase-c-root {data} --phase-d-root {views} --dose 1000 --view dense"
NOTEBOOK = "notebook 00_design {place}/a.ipynb -p preset=smoke -p base_npz=null -p run_folder=r"


@needs_mount
@pytest.mark.parametrize(
    ("words", "work"),
    [
        ("run --preset smoke --reports {place}", "study_lib.runs.engine.run_plan"),
        (
            "generate --preset smoke --output-root {place}/C",
            "study_lib.phases.dataset.scene_of",
        ),
        (
            "overlap --phase-c-root {data} --output-root {place}/D --artifact-root {place}/D",
            "study_lib.phases.overlap.view_of",
        ),
        (
            f"train {PHASES} --artifact-root {{place}}/E",
            "study_lib.phases.train.execute_training_job",
        ),
        (
            f"train-thinned {PHASES} --artifact-root {{place}}/E",
            "study_lib.phases.train_thinned.train_networks",
        ),
        (
            f"reconstruct {PHASES} --split test --artifact-root {{place}}/F",
            "study_lib.phases.reconstruct.run_algorithm",
        ),
        (NOTEBOOK, "study_lib.runs.kernels.AsyncKernelManager.start_kernel"),
        ("params write --folder {place}/p", "study_lib.phases.scene.scene_of"),
    ],
)
def test_a_read_only_folder_stops_a_command_before_it_works(words, work, tmp_path, matrix):
    """On a machine where nothing else would be the matter."""
    target = tmp_path / "fixed"
    places = {"place": target, "data": matrix.root("dataset"), "views": matrix.root("views")}
    arguments = [word.format(**places) for word in words.split()]
    command = (sys.executable, "-c", WATCHED, work)

    code, error, left = on_small_disk(target, "99m", *arguments, read_only=True, command=command)

    assert code == 2, error
    assert "WORKED" not in error
    assert "Read-only file system" in error
    assert "choose a folder that can be written" in error
    assert left == "./old.txt old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_finds_no_room_keeps_the_old_file(number, tmp_path, monkeypatch, study):
    """Nor one that the quota leaves no room."""
    words = ("params", "write", "--folder", "p", "--preset", "smoke")
    assert study(*words).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def no_room(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("study_lib.files.os.fsync", no_room)
    code, _, error = study(*words, "--run-folder", "elsewhere")

    assert code == 1
    assert re.search(r"\.yaml: the disk is full \(\d+ bytes went in\); free some space", error)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


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


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_times_and_names_are_those_of_utc_in_every_zone(zone, tmp_path):
    before = time.time()

    def called(*words: str) -> str:
        command = [*STUDY, *words, "--preset", "smoke"]
        environment = os.environ | {"TZ": zone}
        result = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        return result.stdout

    called("generate", "--output-root", "C")
    (job,) = read_json(tmp_path / "C" / "run_manifest.json")["jobs"].values()
    stamp = job["started"]
    name = re.search(r"jobs in reports/(\S+),", called("plan"))[1]

    expected = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))
    later = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    assert stamp.endswith("+00:00")
    assert expected <= stamp[:16] <= later
    assert name[:10] in (expected[:10], later[:10])
    assert name.removeprefix(name[:10]) == run_name(load_design("smoke"))[10:]


def test_durations_do_not_follow_a_clock_that_is_set_back(tmp_path, monkeypatch):
    real = time.time
    job = Work(tmp_path / "manifest.json", "a", tmp_path, {})
    with recorded(job):
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        time.sleep(0.05)

    record = json.loads((tmp_path / "manifest.json").read_text())["jobs"]["a"]
    assert 0.05 <= record["wall_s"] < 30
