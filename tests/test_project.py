"""Rules about the project itself: layers, docstrings, notebooks, pins, no trace of any machine."""

import ast
import functools
import graphlib
import itertools
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from pathlib import Path

import click
import nbformat
import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from study_lib.cli.main import app
from study_lib.design.notebooks import NOTEBOOKS, parameters_of

ROOT = Path(__file__).resolve().parents[1]


def modules_of(library: Path) -> list[Path]:
    """Return the modules of a library, those of its packages too."""
    return sorted(library.rglob("*.py"))


MODULES = modules_of(ROOT / "study_lib")
PACKAGES = sorted((ROOT / "study_lib").glob("*/__init__.py"))
DOCUMENTS = [
    *(ROOT / "README.md", ROOT / "CHANGELOG.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
]
NOTEBOOK_PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *itertools.chain.from_iterable(PROJECT["optional-dependencies"].values()),
    )
]
HEAVY = ("torch", "ptychi", "matplotlib", "papermill", "snakemake")
LIGHT = ("errors.py", "files.py", "seeding.py", "system.py", "design", "overlap", "data", "cli")
LIGHT_MODULES = (
    *("physics.measurement", "physics.probe", "physics.scan", "physics.specimen"),
    *("networks.registry", "phases.conditions", "phases.records", "phases.scene"),
    *("runs.forecast", "runs.job", "runs.plan", "runs.resources", "runs.run", "runs.staleness"),
)

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
every_notebook = pytest.mark.parametrize("path", NOTEBOOK_PATHS, ids=lambda path: path.stem)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path, library: Path = ROOT / "study_lib") -> str:
    """Return a module's full name, ``study_lib.physics.forward``."""
    parts = path.relative_to(library.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST) -> set[str]:
    """Return the names imported anywhere in a module, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph(library: Path = ROOT / "study_lib") -> dict[str, set[str]]:
    """Return for each module of a library those that it imports."""
    paths = {module_name(path, library): path for path in modules_of(library)}
    return {
        name: (imported_names(tree_of(path)) & paths.keys()) - {name, "study_lib"}
        for name, path in paths.items()
    }


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cells_tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# --- study_lib


def test_imports_go_one_way():
    """No cycle, not even through an import inside a function."""
    order = list(graphlib.TopologicalSorter(import_graph()).static_order())

    places = [
        order.index(f"study_lib.{name}")
        for name in ("physics.forward", "phases.compare", "cli.main")
    ]
    assert places == sorted(places)


def test_what_plans_and_checks_starts_without_the_heavy_packages():
    """`study --help` answers at once, a wrong design is refused at once, and so is a wrong file."""
    light = {module_name(path) for path in MODULES if path.relative_to(ROOT).parts[1] in LIGHT}
    light = {name for name in light if not name.startswith("study_lib.data.formats.")}
    light |= {f"study_lib.{name}" for name in LIGHT_MODULES}
    code = (
        f"import sys, {', '.join(sorted(light))}\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def undocumented(path: Path) -> list[str]:
    """Return what is public in a module and has no docstring."""
    tree = tree_of(path)
    nodes = [tree, *tree.body]
    nodes += itertools.chain.from_iterable(
        node.body for node in tree.body if isinstance(node, ast.ClassDef)
    )
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [
        getattr(node, "name", "module")
        for node in nodes
        if isinstance(node, kinds)
        and not getattr(node, "name", "").startswith("_")
        and not ast.get_docstring(node)
    ]


@every_module
def test_everything_public_is_documented(path):
    assert undocumented(path) == []


def unused(modules: list[Path]) -> list[str]:
    """Return the public functions and classes of some modules that only tests name.

    A class with a keyword in its first line enters itself into a table.
    """
    places = [*modules, *NOTEBOOK_PATHS, *ROOT.glob("benchmarks/*.py"), ROOT / "workflow/Snakefile"]
    words = Counter(
        word for path in places for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    )
    return [
        f"{path.stem}.{node.name}"
        for path in modules
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and words[node.name] < 2
        if not getattr(node, "keywords", ())
    ]


def test_every_public_function_and_class_is_used_by_more_than_tests():
    assert unused(MODULES) == []


def test_rules_see_a_module_in_a_package(tmp_path):
    """Planted where a rule that looks at one folder alone would not see them."""
    library = tmp_path / "study_lib"
    shutil.copytree(ROOT / "study_lib", library, ignore=shutil.ignore_patterns("__pycache__"))
    (library / "inner" / "deeper").mkdir(parents=True)
    for folder in (library / "inner", library / "inner" / "deeper"):
        (folder / "__init__.py").write_text('"""A package."""\n')
    offender = library / "inner" / "deeper" / "offender.py"
    offender.write_text(
        '"""An offender."""\n\nfrom study_lib.inner import other\n\n\n'
        "def never_called_planted():\n    return other  # type: ignore\n"
    )
    other = library / "inner" / "other.py"
    other.write_text('"""Another one."""\n\nimport study_lib.inner.deeper.offender\n')
    modules = modules_of(library)

    graph = import_graph(library)

    assert undocumented(offender) == ["never_called_planted"]
    assert "offender.never_called_planted" in unused(modules)
    assert {offender, other} <= set(modules)
    assert graph["study_lib.inner.deeper.offender"] >= {"study_lib.inner.other"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()
    assert silenced_without_reason(offender) == [7]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_a_package_says_what_belongs_there(path):
    """In docs/code.md as in the package itself, in three sentences: what it is, has, has not."""
    said = " ".join(ast.get_docstring(tree_of(path)).split())
    page = " ".join((ROOT / "docs" / "code.md").read_text(encoding="utf-8").split())

    assert said in page
    assert len(re.findall(r"[.](?= |$)", said)) <= 3


def test_the_library_is_few_files_and_none_is_long():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}

    assert len(MODULES) <= 175
    assert [path for path, lines in lengths.items() if lines > 700] == []


SILENCED = re.compile(
    r"#\s*(?:type: ignore\b(?:\[[\w, -]+\])?|noqa\b(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*)?)"
)
# These take an error or a warning in and say nothing; the pattern itself is no case of it.
QUIET = re.compile(
    r"\bsuppress\(|ignore_errors=True|simplefilter\(\"ignore|filterwarnings\(\"ignore|^\s*pass\b"
)
CODE = sorted(
    path
    for folder in ("study_lib", "tests", "benchmarks", "workflow")
    for path in (ROOT / folder).rglob("*.py")
)


def comments_of(path: Path) -> dict[int, str]:
    """Return the comments of a source by line."""
    with path.open("rb") as file:
        tokens = tokenize.tokenize(file.readline)
        return {one.start[0]: one.string for one in tokens if one.type == tokenize.COMMENT}


def code_lines_of(path: Path) -> dict[int, str]:
    """Return the lines of a source that hold more than text and comments, by number."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    kinds = (tokenize.NAME, tokenize.OP)
    lines = {one.start[0]: one.line for one in tokens if one.type in kinds}
    return {number: line for number, line in lines.items() if not line.lstrip().startswith("#")}


def silenced_without_reason(path: Path) -> list[int]:
    """Return the lines of a source that silence a check or an error and do not say why."""
    comments = comments_of(path)
    bare = [
        number
        for number, comment in comments.items()
        if SILENCED.match(comment) and len(SILENCED.sub("", comment, count=1).strip(" #")) < 8
    ]
    bare += [
        number
        for number, line in code_lines_of(path).items()
        if QUIET.search(line) and number not in comments and number - 1 not in comments
    ]
    return bare


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_silenced_says_why_beside_it(path):
    assert silenced_without_reason(path) == [], f"{path.name}: lines without a reason"


def test_every_skip_has_its_reason():
    calls = [
        (path.name, node)
        for path in CODE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"skip", "skipif", "xfail", "importorskip"}
    ]
    assert calls, "nothing was looked at"

    bare = [
        f"{name}:{node.lineno}"
        for name, node in calls
        if not any(keyword.arg == "reason" for keyword in node.keywords)
        and not (isinstance(node.func, ast.Attribute) and node.func.attr == "skip" and node.args)
    ]
    assert bare == []


# --- notebooks


def test_every_notebook_has_a_model_of_its_parameters():
    assert [path.stem for path in NOTEBOOK_PATHS] == sorted(NOTEBOOKS)


@every_notebook
def test_parameters_cell_mirrors_the_model(path):
    """One literal per field: no expressions, nothing missing, nothing extra."""
    (cell,) = cells_tagged(nbformat.read(path, as_version=4), "parameters")

    values = {
        node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
    }

    assert values.keys() == NOTEBOOKS[path.stem].model_fields.keys()
    parameters_of(path.stem, values)


@every_notebook
def test_notebook_is_short_and_calls_the_library(path):
    """What is worth a function or a loop belongs into study_lib, where it is tested."""
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) <= 30
    assert path.stat().st_size < 1_000_000
    banned = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.For | ast.While
    for cell in code_of(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.source
        # A magic or a shell command is not Python and fails here.
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, banned)]
        assert found == [], cell.source


@every_notebook
def test_notebook_asks_a_question_and_says_what_it_does_not_show(path):
    cells = nbformat.read(path, as_version=4).cells

    first, last = cells[0], cells[-1]

    assert (first.cell_type, last.cell_type) == ("markdown", "markdown")
    assert re.match(r"# \S.*\?\n", first.source)
    assert last.source.startswith("**What this does not show.** ")


@every_notebook
def test_notebook_calls_something_after_at_most_four_imports(path):
    """The face of the library gives what a notebook needs by one name."""
    lines = 0
    for cell in code_of(nbformat.read(path, as_version=4)):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                lines += 1
            elif isinstance(node, ast.Expr) and "set_option" in ast.unparse(node):
                continue  # how tables are shown
            elif any(isinstance(part, ast.Call) for part in ast.walk(node)):
                assert lines <= 4
                return
    pytest.fail("calls nothing")


@every_notebook
def test_no_text_in_a_table_of_a_notebook_is_cut_short(path):
    """pandas ends a text that it cuts with three dots."""
    cells = code_of(nbformat.read(path, as_version=4))
    outputs = itertools.chain.from_iterable(cell.outputs for cell in cells)
    tables = ("".join(output.get("data", {}).get("text/html", "")) for output in outputs)

    assert [table for table in tables if re.search(r"\w\.\.\.</t[dh]>", table)] == []


@every_notebook
def test_notebook_checks_a_result(path):
    """Without a checked cell nbval would only see that nothing raises."""
    assert len(cells_tagged(nbformat.read(path, as_version=4), "nbval-check-output")) == 1


@every_notebook
def test_stored_outputs_come_from_one_clean_run(path):
    cells = code_of(nbformat.read(path, as_version=4))
    counts = [cell.execution_count for cell in cells]
    outputs = list(itertools.chain.from_iterable(cell.outputs for cell in cells))
    assert counts == list(range(1, len(cells) + 1))
    assert "error" not in {output.output_type for output in outputs}
    kinds = set(itertools.chain.from_iterable(output.get("data", {}) for output in outputs))
    assert not [kind for kind in kinds if kind.startswith("image/")], "run `make notebooks`"
    assert "stderr" not in {output.get("name") for output in outputs}


# --- installation


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    assert [pin for pin in pins if pin and not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)] == []
    return {
        canonicalize_name(name): version
        for name, version in (pin.split("==") for pin in pins if pin)
    }


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_pinned_version_is_within_the_bounds(requirement):
    version = pinned_versions().get(canonicalize_name(requirement.name))

    assert version is not None, f"{requirement.name} is not in constraints.txt"
    assert requirement.specifier.contains(version, prereleases=True)


def test_every_package_has_its_reason():
    """docs/dependencies.md names each one in the first cell of a row, and none besides."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w, -]+) \|", text, flags=re.MULTILINE)
    named = [canonicalize_name(name) for row in rows for name in row.split(", ")]

    wanted = [canonicalize_name(requirement.name) for requirement in REQUIREMENTS]
    assert sorted(name for name in named if name != "package") == sorted(wanted)


def test_conda_users_get_the_same_installation():
    """environment.yml pins nothing itself: bounds from pyproject.toml, pins from constraints."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    options = " ".join(pip["pip"]).split()
    python = Requirement(conda[0])

    assert [Requirement(text).name for text in conda] == ["python", "pip"]
    assert options[:3] == ["--constraint", "constraints.txt", "--editable"]
    assert set(re.fullmatch(r"\.\[(.*)\]", options[3]).group(1).split(",")) == set(
        PROJECT["optional-dependencies"]
    )
    oldest = SpecifierSet(PROJECT["requires-python"])
    for minor in range(8, 16):
        assert not python.specifier.contains(f"3.{minor}") or oldest.contains(f"3.{minor}")


def test_every_python_that_is_admitted_is_named_and_checked_where_the_project_is_hosted():
    admitted = SpecifierSet(PROJECT["requires-python"])
    versions = [f"3.{minor}" for minor in range(8, 20) if admitted.contains(f"3.{minor}")]
    hosted = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    job = hosted["jobs"]["tests"]
    named = "Programming Language :: Python :: "

    assert job["strategy"]["matrix"]["python"] == versions
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert [one for one in PROJECT["classifiers"] if one.startswith(f"{named}3.")] == [
        f"{named}{version}" for version in versions
    ]


def test_forms_of_the_hosted_project_ask_in_fields_with_names():
    forms = list((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= form.keys()
            names = [field["id"] for field in form["body"]]
            assert len(names) == len(set(names)) > 0
            assert all(field["attributes"]["label"] for field in form["body"])
    assert len(forms) > 2


def test_make_installs_what_is_pinned():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")

    (install,) = [
        line for line in text.splitlines() if "pip install" in line and "--editable" in line
    ]

    assert "--constraint constraints.txt" in install


# --- nothing left for later, no trace of a machine

FOLDERS = "|".join(("home", "Users", "root", "work", "tmp", "private", "mnt", "scratch", "opt"))
LATER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
ABSOLUTE = re.compile(rf"(?<![\w.:/~>)}}-])/(?:{FOLDERS})/\w|\b[A-Z]:\\\\?(?:{FOLDERS})")
INDEX = re.compile(r"(?:index-url|find-links|trusted-host|INDEX_URL)[\s=\"':]+([^\s\"']+)")
HOST = re.compile(r"https?://([\w.-]+)(?::(\d+))?")


def committed_texts() -> dict[str, str]:
    """Return what git tracks or would add, without binary files."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to commit")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in result.stdout.split("\0") if name]
    contents = {path: path.read_bytes() for path in paths if path.is_file()}
    return {
        path.relative_to(ROOT).as_posix(): content.decode("utf-8", errors="replace")
        for path, content in contents.items()
        if b"\0" not in content
    }


def test_no_line_is_left_for_later():
    found = {
        name: match.group(0)
        for name, text in committed_texts().items()
        if (match := LATER.search(text))
    }
    assert found == {}


def test_no_file_names_a_folder_of_somebodys_machine():
    found = {
        name: match.group(0)
        for name, text in committed_texts().items()
        if (match := ABSOLUTE.search(text))
    }
    assert found == {}


def test_no_file_names_a_private_package_index_or_host():
    """No package index is named; no address has a port, none lies inside a network."""
    private = re.compile(r"^(localhost|[\d.]+|[^.]+|.*\.(internal|local|lan|corp))$")
    found = []
    for name, text in committed_texts().items():
        for index in INDEX.findall(text):
            found.append((name, index))
        for host, port in HOST.findall(text):
            if port or private.match(host):
                found.append((name, host))
    assert found == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "peers").glob("*.py")), ids=lambda path: path.stem
)
def test_adapters_of_peers_import_nothing_of_ours(path):
    """They run in environments that do not have it."""
    assert not [name for name in imported_names(tree_of(path)) if name.startswith("study_lib")]


def test_every_adapter_of_a_peer_has_a_pinned_environment():
    adapters = {path.stem for path in (ROOT / "benchmarks" / "peers").glob("*.py")} - {"worker"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert adapters == set(re.findall(r"^peer-(\w+):", makefile, re.M))
    for name in adapters:
        pinned = rf"^\$\({name.upper()}\)/.installed: PACKAGE := .*==[\d.]+$"
        assert re.search(pinned, makefile, re.M), f"{name}: no version in the Makefile"


@pytest.mark.parametrize(
    "text",
    ["open('/ho" + "me/ada/x.npz')", "cd /wo" + "rk/main", "C:" + "\\Users\\ada", '"/tm' + 'p/a"'],
)
def test_absolute_paths_are_recognised(text):
    assert ABSOLUTE.search(text)


def test_every_test_that_the_documents_name_exists():
    named = [
        (path.name, file, name)
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", path.read_text("utf-8"))
    ]
    missing = [
        (document, file, name)
        for document, file, name in named
        if not any(
            f"def {name}(" in path.read_text(encoding="utf-8")
            for path in (ROOT / "tests").rglob(file)
        )
    ]

    assert len(named) > 30
    assert missing == []


def anchors_of(text: str) -> set[str]:
    """Return what links may point to in a document, as repositories' pages make it of headings."""
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_links_of_the_documents_lead_to_files_and_headings_that_exist():
    links = [
        (path, place, anchor)
        for path in DOCUMENTS
        for place, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text("utf-8")
        )
    ]
    broken = []
    for path, place, anchor in links:
        target = (path.parent / place).resolve() if place else path
        has_anchor = not anchor or anchor in anchors_of(target.read_text("utf-8"))
        if not (target.exists() and has_anchor):
            broken.append(f"{path.name}: {place}#{anchor}")

    assert len(links) > 60
    assert broken == []


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def commands_of(group: click.Group, before: str = "") -> dict[str, set[str]]:
    """Return the options of each command by its words."""
    found = {}
    for word, command in group.commands.items():
        name = f"{before}{word}"
        found[name] = {"--help"}.union(
            *([*one.opts, *one.secondary_opts] for one in command.params)
        )
        if isinstance(command, click.Group):
            found |= commands_of(command, f"{name} ")
    return found


def calls_in(text: str) -> list[str]:
    """Return what a document says in code of the command line, in lines and within them."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    words = [" ".join(code.split()) for code in (*lines, *spans)]
    return [code for code in words if re.match(r"(\.venv/bin/)?study [a-z]", code)]


def test_commands_and_options_that_the_documents_name_exist():
    known = commands_of(typer.main.get_command(app))
    calls = [(path.name, code) for path in DOCUMENTS for code in calls_in(path.read_text("utf-8"))]

    wrong = []
    for document, code in calls:
        _, first, second, *_ = f"{code} -".split()
        name = f"{first} {second}" if f"{first} {second}" in known else first
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code))
        if name not in known or options - known[name]:
            wrong.append((document, code))

    assert len(calls) > 50
    assert wrong == []


def test_jupyter_listens_to_this_machine_alone_and_asks_for_its_token():
    starts = {
        line.strip()
        for text in committed_texts().values()
        for line in text.splitlines()
        if re.search(r"\bjupyter[ -](lab|notebook|server)\b.*--", line)
    }

    assert any("$(BIN)/jupyter lab" in start for start in starts)
    assert all("--ip=127.0.0.1" in start for start in starts if "$(BIN)" in start)
    assert not any(re.search(r"(token|password)=(''|\"\"|\s|$)", start) for start in starts)
