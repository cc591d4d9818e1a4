"""What ``import study_lib as study`` gives: at once, every name, each with an example that runs."""

import ast
import contextlib
import doctest
import importlib
import io
import itertools
import operator
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest

import study_lib

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "study_lib"
MOST_S = 0.1
HEAVY = ("numpy", "torch", "matplotlib", "pandas", "ptychi", "papermill", "snakemake", "scipy")
DOSE, VIEW = 1e4, "dense"
ONE_ALGORITHM = ("iterative.algorithms=[solver]", "iterative.denoised=false")


class Documented(NamedTuple):
    """A module, class or function of the library, its file, and its docstring."""

    name: str
    path: Path
    text: str

    @property
    def examples(self) -> list[doctest.Example]:
        return doctest.DocTestParser().get_examples(self.text, self.name)

    @property
    def needs_run(self) -> bool:
        """Whether its example takes ``run``, which a comment in it explains, from outside."""
        return any("# run: study.open_run" in example.source for example in self.examples)


def documented_in(path: Path) -> list[Documented]:
    """Return what a module documents, itself first; nothing is imported."""
    found: list[Documented] = []

    def visit(node: ast.AST, name: str) -> None:
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            return
        found.append(Documented(name, path, ast.get_docstring(node) or ""))
        for child in node.body:
            visit(child, f"{name}.{getattr(child, 'name', '')}")

    visit(ast.parse(path.read_text(encoding="utf-8")), module_of(path))
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_of(stub: Path) -> dict[str, str]:
    """Return the names that the stub of a package gives, and what each one stands for."""
    package = module_of(stub)
    return {
        alias.asname or alias.name: ".".join(
            part for part in (package, node.module, alias.name) if part
        )
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


STUBS = sorted(LIBRARY.rglob("__init__.pyi"))
FACE = names_of(LIBRARY / "__init__.pyi")
DOCUMENTED = {
    one.name: one for path in sorted(LIBRARY.rglob("*.py")) for one in documented_in(path)
}
SHORT = {full: name for name, full in FACE.items()}
EXAMPLES = [
    pytest.param(
        one,
        id=SHORT.get(one.name, one.name.removeprefix("study_lib.")),
        marks=[pytest.mark.slow] if one.needs_run else [],
    )
    for one in DOCUMENTED.values()
    if ">>>" in one.text
]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_design_with):
    """A run of the tiny study, every phase of one dose and view done."""
    design = tiny_design_with(*ONE_ALGORITHM)
    run = study_lib.create_run(tmp_path_factory.mktemp("finished"), design)
    condition = run.condition(DOSE, VIEW)
    for phase in ("generate", "choose_view", "train", "train_thinned", "reconstruct", "compare"):
        getattr(study_lib, phase)(condition)
    study_lib.summarize(run)
    return run


def test_the_import_is_quick_and_brings_no_heavy_package():
    code = (
        "import sys, time\n"
        "began = time.process_time()\n"
        "import study_lib\n"
        "print(time.process_time() - began)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    taken_s = []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds, heavy = result.stdout.splitlines()
        assert heavy == "[]"
        taken_s.append(float(seconds))

    assert min(taken_s) < MOST_S


def test_every_package_with_a_stub_is_looked_at():
    packages = [module_of(stub) for stub in STUBS]

    assert packages == ["study_lib", "study_lib.figures", "study_lib.physics"]


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_every_name_of_a_stub_can_be_had(stub):
    package = importlib.import_module(module_of(stub))

    assert sorted(package.__all__) == sorted(names_of(stub))
    assert set(package.__all__) <= set(dir(package))
    for name, full in names_of(stub).items():
        got = getattr(package, name)
        home = got.__name__ if full in sys.modules else f"{got.__module__}.{got.__qualname__}"
        assert home == full


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no_such_name"):
        operator.attrgetter("no_such_name")(study_lib)


def test_the_docstring_of_the_library_names_what_it_gives():
    named = {word.strip("`,;.") for word in (study_lib.__doc__ or "").split() if "``" in word}

    assert set(FACE) <= named


@pytest.mark.parametrize("name", FACE)
def test_every_name_has_an_example(name):
    """A package that only gathers names, as ``figures`` does, has it with one of them."""
    home = DOCUMENTED[FACE[name]]
    stub = home.path.with_suffix(".pyi")
    below = names_of(stub).values() if stub in STUBS else ()
    examples = [one.examples for full in (home.name, *below) if (one := DOCUMENTED.get(full))]
    sources = [example.source for example in itertools.chain.from_iterable(examples)]

    assert "import study_lib as study\n" in sources
    assert any(f"study.{name}" in source for source in sources)


def test_no_example_is_skipped_and_none_is_overlooked():
    """Comments and texts that are no docstrings have no examples: they would not be run."""
    assert not [one.name for one in DOCUMENTED.values() if "+SKIP" in one.text]
    for path in LIBRARY.rglob("*.py"):
        run = sum(len(one.examples) for one in DOCUMENTED.values() if one.path == path)
        assert path.read_text(encoding="utf-8").count(">>> ") == run, path.name


@pytest.mark.parametrize("documented", EXAMPLES)
def test_the_examples_print_what_they_say(documented, request, tmp_path, monkeypatch):
    shared = {"run": request.getfixturevalue("finished_run")} if documented.needs_run else {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)  # no sliders, no bars
    test = doctest.DocTestParser().get_doctest(
        documented.text, shared, documented.name, str(documented.path), 0
    )
    said = io.StringIO()

    with contextlib.redirect_stderr(io.StringIO()):  # where nobody watches
        result = doctest.DocTestRunner(verbose=False).run(test, out=said.write)

    assert result.attempted == len(documented.examples)
    assert result.failed == 0, said.getvalue()


def test_the_python_of_the_readme_shows_the_object_of_a_finished_run(finished_run, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(plt.gcf()))

    place = r'"reports/[^"]+"'
    assert len(re.findall(place, code)) == 1
    exec(re.sub(place, repr(str(finished_run.folder)), code), {})

    (image,) = shown[0].axes[0].get_images()
    plt.close(shown[0])
    expected = finished_run.condition(DOSE, VIEW).measurement().object_shape
    assert image.get_array().shape == expected
    assert np.ptp(image.get_array()) > 0.5  # radians: an object, not a uniform start
