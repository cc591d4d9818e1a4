"""A copy of a run for others: whole, sound, and without a word of where and by whom it was made."""

import json

import nbformat
import pytest

from study_lib.files import read_json, write_text
from study_lib.runs import publish as publishing
from study_lib.runs.evidence import finish, seal

SECRET = "s3cr3t-value-of-a-token"
PICTURE = "iVBORw0KGgo/pics/of/AAAA/9j/4AAQ=="
HIDDEN = (
    "PATH=/beamline/ada/project/run.npz",
    "file:///data/ada/secret/a.npz",
    "cfg:/data/ada/settings.yaml",
    "-I/data/ada/include/x.h",
    f"read '{'/'.join(('', 'Users', 'ada lovelace', 'notes', 'b.txt'))}', <i>/beamline/a/d.tx</i>",
)


@pytest.fixture
def owned(sealed_copy, monkeypatch):
    """A finished run in which notebook, log and record name places, host and user."""
    monkeypatch.setattr(publishing.getpass, "getuser", lambda: "adalovelace")
    monkeypatch.setattr(publishing.socket, "gethostname", lambda: "analytical-engine")
    path = sealed_copy / "notebooks" / "00_design.ipynb"
    notebook = nbformat.read(path, 4)
    said = f"{sealed_copy}/design.json on analytical-engine, see /data/adalovelace/notes/b.txt"
    hidden = "\n".join(HIDDEN)
    notebook.cells.append(
        nbformat.v4.new_code_cell(
            "1",
            outputs=[
                nbformat.v4.new_output("stream", name="stdout", text=said),
                nbformat.v4.new_output("display_data", {"image/png": PICTURE}),
                nbformat.v4.new_output("stream", name="stderr", text=hidden),
            ],
        )
    )
    nbformat.write(notebook, path)
    record = sealed_copy / "jobs" / "00_design" / "done.json"
    content = json.loads(record.read_text())
    content["sha256"]["notebooks/00_design.ipynb"] = publishing.sha256_of(path)
    write_text(record, json.dumps(content))
    finish(sealed_copy)
    return sealed_copy


def texts_of(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".npz", ".pt"):
            yield path, path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_published_copy_names_no_place_and_nobody_and_is_sound(owned, tmp_path, study):
    code, out, error = study("publish", owned, "shown", "--author", "Ada Lovelace")
    shown = tmp_path / "shown"

    assert (code, error) == (0, "")
    assert "study verify" in out
    for path, text in texts_of(shown):
        for place in ("/beamline", "/data/ada", "/Users", "lovelace", str(owned.parent)):
            assert place not in text.replace("Ada Lovelace", ""), (path, place)
        assert "analytical-engine" not in text, path
        assert "adalovelace" not in text, path
    notebook = nbformat.read(shown / "notebooks" / "00_design.ipynb", 4)
    stream, picture, _ = notebook.cells[-1].outputs
    assert stream.text == "./design.json on host, see .../b.txt"
    assert picture.data["image/png"] == PICTURE, "a picture that looks like a path"
    assert not (shown / "engine.log").exists()
    assert not list(shown.rglob("*.npz"))
    assert not list(shown.rglob("*.pt"))
    assert (shown / "index.html").is_file()
    assert (shown / "phase_h_summary" / "figures" / "cost.png").is_file()
    assert study("verify", shown).code == 0

    write_text(shown / "phase_h_summary" / "summary.md", "better than it was")
    code, _, error = study("verify", shown)
    assert code == 1
    assert "summary.md: differs from its record" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "c3"])
def test_the_name_of_a_run_may_be_any_word_of_its_files(name, owned, tmp_path, study):
    """A name such as `run` stands in texts, one such as `c3` in hashes: neither is its place."""
    before = nbformat.read(owned / "notebooks" / "06_summary.ipynb", 4)
    owned.rename(tmp_path / name)

    code, _, error = study("publish", name, "shown")

    assert (code, error) == (0, "")
    assert study("verify", "shown").code == 0
    after = nbformat.read(tmp_path / "shown" / "notebooks" / "06_summary.ipynb", 4)
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]


@pytest.mark.slow
def test_arrays_come_along_where_they_are_asked_for(sealed_run, tmp_path, study):
    code, _, error = study("publish", sealed_run, "shown", "--arrays")

    assert (code, error) == (0, "")
    for pattern in ("*.npz", "*.pt"):
        found = {path.relative_to(sealed_run) for path in sealed_run.rglob(pattern)}
        assert found == {
            path.relative_to(tmp_path / "shown") for path in (tmp_path / "shown").rglob(pattern)
        }
    assert study("verify", tmp_path / "shown").code == 0


@pytest.mark.slow
def test_a_run_that_was_changed_is_not_published(sealed_copy, tmp_path, study):
    write_text(sealed_copy / "phase_a_design" / "matrix.csv", "changed")

    code, _, error = study("publish", sealed_copy, "shown")

    assert code == 1
    assert "matrix.csv: differs from its record" in error
    assert not (tmp_path / "shown").exists()


@pytest.mark.slow
def test_a_copy_that_would_hold_a_secret_is_not_left(sealed_copy, tmp_path, monkeypatch, study):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    (sealed_copy / "notes.txt").write_text(f"token {SECRET}")
    finish(sealed_copy)

    code, _, error = study("publish", sealed_copy, "shown")

    assert code == 1
    assert "not published:\nnotes.txt holds the value of $SERVICE_TOKEN" in error
    assert SECRET not in error
    assert not (tmp_path / "shown").exists()


@pytest.mark.slow
def test_a_folder_that_exists_is_left_alone(sealed_run, tmp_path, study):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "mine").write_text("precious")

    code, _, error = study("publish", sealed_run, "shown")

    assert code == 2
    assert "exists already; choose another folder" in error
    assert (tmp_path / "shown" / "mine").read_text() == "precious"


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_the_crate_names_authors_times_and_software(given, sealed_run, tmp_path, study):
    """The files of a run are its owner's: the license of the software is not theirs."""
    words = ("--author", "Ada Lovelace", "--license", "CC-BY-4.0") if given else ()
    assert study("publish", sealed_run, "shown", *words).code == 0
    graph = read_json(tmp_path / "shown" / "ro-crate-metadata.json")["@graph"]
    entities = {one["@id"]: one for one in graph}

    root, software = entities["./"], entities["#study"]
    license_ = entities[root["license"]["@id"]]["name"]
    assert license_ == "CC-BY-4.0" if given else "No license was given" in license_
    authors = [entities[one["@id"]]["name"] for one in root.get("creator", ())]
    assert authors == (["Ada Lovelace"] if given else [])
    assert software["softwareVersion"]
    assert software["license"]["@id"].endswith("BSD-3-Clause")
    actions = [one for one in entities.values() if one["@type"] == "CreateAction"]
    assert len(actions) == len(list(sealed_run.glob("jobs/*/done.json")))
    assert {one["@id"] for one in root["mentions"]} == {one["@id"] for one in actions}
    for action in actions:
        assert action["startTime"] <= action["endTime"]
        for kind in ("object", "result"):
            for part in action.get(kind, ()):
                assert (tmp_path / "shown" / part["@id"]).is_file()


@pytest.mark.slow
def test_a_user_named_like_a_word_of_the_study_spoils_no_record(sealed_run, monkeypatch, study):
    monkeypatch.setattr(publishing.getpass, "getuser", lambda: "test")

    code, _, error = study("publish", sealed_run, "shown")

    assert (code, error) == (0, "")
    assert study("verify", "shown").code == 0


@pytest.mark.slow
def test_a_copy_is_neither_made_in_its_run_nor_of_a_copy(sealed_copy, tmp_path, study):
    inside = study("publish", sealed_copy, sealed_copy / "shown")
    assert (inside.code, "lies in the run itself" in inside.err) == (2, True)
    assert study("verify", sealed_copy).code == 0

    assert study("publish", sealed_copy, "shown").code == 0
    again = study("publish", tmp_path / "shown", "twice")
    assert (again.code, "is a published copy" in again.err) == (2, True)


@pytest.mark.slow
def test_a_published_copy_stays_as_it_was_sealed(sealed_run, tmp_path, study):
    """Made anew it would lose its authors; computed again, or as a digest, be another result."""
    assert study("publish", sealed_run, "shown", "--author", "Ada Lovelace").code == 0
    sealed = (tmp_path / "shown" / "seal.json").read_bytes()

    for command in ("report", "resume", "digest"):
        code, out, error = study(command, "shown")
        assert (code, out) == (2, "")
        assert "shown: is a published copy; " in error

    assert (tmp_path / "shown" / "seal.json").read_bytes() == sealed
    assert study("verify", "shown").code == 0


@pytest.mark.slow
def test_a_list_of_what_was_left_out_hides_no_text(sealed_copy, study):
    (sealed_copy / "phase_h_summary" / "summary.md").unlink()
    for listed in (["phase_h_summary/summary.md"], 3):
        (sealed_copy / "published.json").write_text(json.dumps({"left_out": listed}))
        seal(sealed_copy)

        code, _, error = study("verify", sealed_copy)

        assert code == 1
        assert "phase_h_summary/summary.md: missing" in error
