"""Files are whole or absent; manifests lose no record, with several writers at once."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.files import (
    atomic_path,
    hashes_of,
    merge_record,
    read_json,
    sha256_of,
    write_json,
    write_npz,
    write_text,
)

PROJECT = Path(__file__).resolve().parent.parent
WRITER = """
import sys
from pathlib import Path
from study_lib.files import merge_record
for step in range(10):
    merge_record(Path(sys.argv[1]), f"{sys.argv[2]}-{step}", {"step": step})
"""


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")

    with pytest.raises(TypeError), atomic_path(target) as temporary:
        temporary.write_text("half") / "no number"

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")

    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent

    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})

    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_folders_are_made_and_files_are_readable_by_others(tmp_path):
    write_text(tmp_path / "new" / "folder" / "a.txt", "text")

    assert (tmp_path / "new" / "folder" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_json_is_ascii_sorted_and_survives_the_round_trip(tmp_path):
    content = {"b": "µm", "a": [1, None, 2.5]}
    write_json(tmp_path / "a.json", content)

    text = (tmp_path / "a.json").read_bytes().decode("ascii")
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("\n")
    assert read_json(tmp_path / "a.json") == content


def test_missing_or_broken_json_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match="no such file; run the phase that writes it first"):
        read_json(tmp_path / "absent.json")
    for content in (b"{half", b"\xff\xfe\x00"):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(InputError, match="not readable as JSON"):
            read_json(tmp_path / "broken.json")


def test_hashes_are_sha256_by_relative_posix_path(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in (("b/two.txt", b"two"), ("one.txt", b"")):
        (tmp_path / name).write_bytes(content)

    hashes = hashes_of([tmp_path / "one.txt", tmp_path / "b" / "two.txt"], tmp_path)

    assert hashes == {
        "b/two.txt": hashlib.sha256(b"two").hexdigest(),
        "one.txt": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # FIPS 180
    }


def test_the_hash_of_a_large_file_covers_its_end(tmp_path):
    (tmp_path / "large").write_bytes(b"0" * 3_000_000 + b"1")

    assert sha256_of(tmp_path / "large") == hashlib.sha256(b"0" * 3_000_000 + b"1").hexdigest()


def test_equal_arrays_give_equal_files(tmp_path):
    """Hashes of inputs can be compared between runs only if no time is written."""
    for name in ("a", "b"):
        write_npz(tmp_path / f"{name}.npz", {"x": np.arange(9.0)}, {"z": 1, "a": "µ"})

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert set(archive.files) == {"x", "_metadata"}
        assert json.loads(str(archive["_metadata"])) == {"z": 1, "a": "µ"}


def test_an_object_array_is_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_npz(tmp_path / "a.npz", {"x": np.array([{}], dtype=object)}, {})

    assert list(tmp_path.iterdir()) == []


def test_a_record_replaces_its_own_key_only(tmp_path):
    manifest = tmp_path / "manifest.json"
    merge_record(manifest, "first", {"status": "failed"})
    merge_record(manifest, "second", {"status": "done"})
    merge_record(manifest, "first", {"status": "done"})

    assert read_json(manifest)["jobs"] == {
        "first": {"status": "done"},
        "second": {"status": "done"},
    }


def test_other_entries_of_a_manifest_stay(tmp_path):
    write_json(tmp_path / "manifest.json", {"version": 3})
    merge_record(tmp_path / "manifest.json", "job", {})

    assert read_json(tmp_path / "manifest.json") == {"version": 3, "jobs": {"job": {}}}


def test_processes_that_write_at_the_same_time_lose_no_record(tmp_path):
    manifest = tmp_path / "manifest.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(manifest), name], cwd=PROJECT)
        for name in "abcd"
    ]

    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    expected = {f"{name}-{step}" for name in "abcd" for step in range(10)}
    assert read_json(manifest)["jobs"].keys() == expected
