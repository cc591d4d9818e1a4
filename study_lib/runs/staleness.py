"""What a notebook computes with: a hash of its code, and versions of packages.

``job.reason_to_run`` decides with them, and with parameters, inputs and outputs, whether a job runs
again.

A notebook's own cells count, and every module of the library that they import, directly or through
others. Comments, docstrings and layout do not. Modules that draw count only for the notebooks that
write figures as files: no other result depends on a picture, and what was trained or iterated for
hours would be repeated.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from study_lib.errors import InputError, StudyError
from study_lib.files import read_json
from study_lib.runs.plan import NOTEBOOK_FOLDER
from study_lib.system import LIBRARY

WRITE_FIGURES = ("05_compare", "06_summary")
DRAWING = "study_lib.figures"
DECIDING = {  # as imported, and as installed
    "numpy": "numpy",
    "ptychi": "ptychi",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "torch": "torch",
}


@cache
def code_of(notebook: str) -> dict[str, Any]:
    """Return what a job of a notebook computes with: a hash of the sources, and versions.

    Raises
    ------
    InputError
        As for :func:`sources_of`.
    """
    sources = sources_of(notebook)
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{_meaning(sources[name])}\0".encode())
    digest.update(ast.dump(_cells(notebook)).encode())
    used = {DECIDING[name] for name in _packages(sources.values())}
    versions = {name: metadata.version(name) for name in sorted(used)}
    return {"sources": digest.hexdigest()[:16], "packages": versions}


def read_anew() -> None:
    """Forget what was read of sources and notebooks: the next question reads them again."""
    for cached in (code_of, _tree, _imports_of, _meaning, _homes):
        cached.cache_clear()


def require_same_code(notebook: str, code: Mapping[str, Any]) -> None:
    """Check that the files of a notebook's code are still as when its job began.

    Raises
    ------
    StudyError
        If one has been changed: what the kernel loaded is then in doubt.
    """
    read_anew()
    if code_of(notebook) != code:
        raise StudyError(
            "a file of the library or the notebook was changed while this ran; the same command "
            "runs it again"
        )


def sources_of(notebook: str) -> dict[str, Path]:
    """Return the modules of the library that a notebook's job reaches, by name.

    Raises
    ------
    InputError
        If there is no such notebook, or a cell of it is not plain Python.
    """
    known = _modules(LIBRARY)
    reached: dict[str, Path] = {}
    cells = _cells(notebook)
    waiting = [*_imports(cells), *_loaded_lazily(cells)]
    while waiting:
        name = waiting.pop()
        if name not in known or name in reached:
            continue
        if _draws(name) and notebook not in WRITE_FIGURES:
            continue
        reached[name] = known[name]
        package, _, _ = name.rpartition(".")
        waiting += [package, *_imports_of(known[name])]
    return reached


def _draws(name: str) -> bool:
    """Return whether a module is one that draws."""
    return name == DRAWING or name.startswith(f"{DRAWING}.")


def _modules(library: Path) -> dict[str, Path]:
    """Return every module of the library by its full name."""
    names = {}
    for path in library.rglob("*.py"):
        parts = path.relative_to(library.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _cells(notebook: str) -> ast.Module:
    """Return a notebook's cells of code as one."""
    path = NOTEBOOK_FOLDER / f"{notebook}.ipynb"
    cells = (cell for cell in read_json(path)["cells"] if cell["cell_type"] == "code")
    try:
        return ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    except SyntaxError as error:
        raise InputError(
            f"{path}: a cell is not plain Python ({error}); take out magics and shell commands"
        ) from None


def _loaded_lazily(cells: ast.Module) -> Iterator[str]:
    """Yield the modules that names like ``study.train`` or ``study.figures.losses`` load."""
    libraries = {
        alias.asname or alias.name
        for node in ast.walk(cells)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "study_lib"
    }
    for node in ast.walk(cells):
        if not isinstance(node, ast.Attribute):
            continue
        first, *words = ast.unparse(node).split(".")
        package = "study_lib" if first in libraries else ""
        for word in words:
            home = _homes(package).get(word)
            if home is None:
                break
            package = f"{home}.{word}"
            yield from (home, package)


@cache
def _homes(package: str) -> dict[str, str]:
    """Return where the names live that a package loads when they are first used, by its stub."""
    stub = LIBRARY.parent.joinpath(*package.split("."), "__init__.pyi")
    if not package or not stub.is_file():
        return {}
    return {
        alias.name: f"{package}.{node.module}" if node.module else package
        for node in ast.parse(stub.read_bytes()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def _imports_of(path: Path) -> tuple[str, ...]:
    return tuple(_imports(_tree(path)))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all modules that are imported anywhere, perhaps later, perhaps by text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield str(first.value)


def _packages(paths: Iterable[Path]) -> set[str]:
    """Return which of the packages that decide numbers are imported by some modules."""
    imported = {name.split(".")[0] for path in paths for name in _imports_of(path)}
    return imported & DECIDING.keys()


@cache
def _meaning(path: Path) -> str:
    """Return a module without its comments, docstrings and layout."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)
