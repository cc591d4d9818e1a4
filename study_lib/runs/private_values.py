"""Secrets of whoever ran a study, looked for in what a run would publish."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
SHORTEST = 8  # a shorter value is in any text by chance
TEXTS = (".ipynb", ".json", ".jsonl", ".yaml", ".md", ".csv", ".html", ".log", ".txt", ".svg")


def exposed_values(run_folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Return where the text files of a run hold the value of a secret variable, a line for each.

    A notebook that prints its environment, or a path with a password in it, ends up in a report.
    The lines name the variable and never the value.

    Parameters
    ----------
    run_folder
        The run.
    environment
        Variables by name; those whose name says token, secret, password, credential or key count.
    """
    secrets = {
        name: value.encode()
        for name, value in environment.items()
        if NAMES.search(name) and len(value) >= SHORTEST
    }
    return sorted(_found(run_folder, secrets)) if secrets else []


def _found(run_folder: Path, secrets: Mapping[str, bytes]) -> Iterator[str]:
    for path in run_folder.rglob("*"):
        if path.suffix not in TEXTS or not path.is_file():
            continue
        content = path.read_bytes()
        for name, value in secrets.items():
            if value in content:
                yield f"{path.relative_to(run_folder).as_posix()} holds the value of ${name}"
