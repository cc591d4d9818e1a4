"""What the command says of itself: commands in groups, its version, where a report is."""

import pytest

from study_lib import __version__
from study_lib.cli.main import GROUPS, app
from study_lib.design.presets import load_design
from study_lib.runs.run import create_run, run_name


def test_help_lists_every_command_once_with_the_whole_first_line_of_its_own(study):
    named = [name for names in GROUPS.values() for name in names]
    hidden = {"job"}
    commands = {
        one.name or one.callback.__name__.replace("_", "-") for one in app.registered_commands
    }
    groups = {one.name for one in app.registered_groups}

    assert sorted(named) == sorted((commands | groups) - hidden)
    code, text, _ = study("--help")
    assert code == 0
    assert "..." not in text.partition("Options:")[2]
    assert "Run the whole study; a second call on the same day runs only what is missing." in (
        " ".join(text.split())
    )
    assert [text.index(f"\n{title}:") for title in GROUPS] == sorted(
        text.index(f"\n{title}:") for title in GROUPS
    )


def test_the_version_is_that_of_the_library(study):
    assert study("--version") == (0, f"study {__version__}\n", "")


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser is asked for."""
    addresses = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    return addresses


def test_open_shows_the_report_of_the_newest_run(study, opened, tmp_path):
    design = load_design("smoke")
    run = create_run(tmp_path / "reports" / run_name(design), design)

    code, _, error = study("open")
    assert code == 2
    assert f"index.html does not exist; `study report reports/{run.folder.name}` writes it" in error
    assert not opened

    page = run.folder / "index.html"
    page.touch()
    code, text, _ = study("open")
    assert code == 0
    assert text == f"reports/{run.folder.name}/index.html\n"
    assert opened == [page.as_uri()]


def test_without_a_run_the_remedy_is_named(study, opened):
    for command in ("open", "verify"):
        code, _, error = study(command)
        assert code == 2
        assert "no run here; give the folder of one, or begin with `study run`" in error
    assert not opened
