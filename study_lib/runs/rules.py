"""What the rules of the workflow ask about a run: which jobs share a kernel, and what each needs.

The engine writes it before it starts, so that Snakemake, which reads the rules anew in each job of
a cluster, reads a small file and no plan. Nothing heavy is imported here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

RULES_FILE = "rules.json"
PLAN_FILE = "plan.json"
RESOURCES_FILE = "resources.json"
DEFAULT_NEED = {"threads": 1, "mem_mb": 4000, "runtime_min": 120, "gpus": 0}
SHORT_MIN = 30  # asked for, which is several times what is expected: a long job has its own kernel
SHARED_MIN = 240  # asked for by all that share a kernel: what most partitions grant
LAST_OF_A_CONDITION = ("03_train", "03_train_thinned", "05_compare")  # what a summary waits for
# Axes of the jobs of a notebook, as they follow its name; then the replicate, if it is another.
AXES: dict[str, tuple[str, ...]] = {
    "00_design": (),
    "01_reference": (),
    "01_dataset": ("dose",),
    "02_overlap": ("dose", "view"),
    "03_train": ("dose", "view"),
    "03_train_thinned": ("dose", "view", "split"),
    "04_reconstruct": ("dose", "view", "split"),
    "05_compare": ("dose", "view", "split"),
    "06_summary": (),
}
REFERENCE = "01_reference"
SHARED = {"02_overlap": "view", "04_reconstruct": "split", "05_compare": "split"}
Wildcards = Mapping[str, str]


def axes_of(name: str) -> dict[str, str]:
    """Return the axes in the name of a job, and as ``nested`` what follows them.

    >>> from study_lib.runs.rules import axes_of
    >>> axes_of("02_overlap__dose_1000__dense__replicate_1")
    {'dose': 'dose_1000', 'view': 'dense', 'nested': '__replicate_1'}
    """
    notebook, *labels = name.split("__")
    axes = AXES[notebook]
    values = dict(zip(axes, labels, strict=False))
    return values | {"nested": "".join(f"__{label}" for label in labels[len(axes) :])}


def rules_of(
    names: Sequence[str],
    needs: Mapping[str, Mapping[str, int]],
    *,
    alike: bool = False,
    waits: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what the rules of the workflow ask about a run.

    Parameters
    ----------
    names
        Of the jobs of its plan.
    needs
        Threads, memory, minutes and GPUs of each job by name.
    alike
        Whether all jobs of a notebook ask for what its largest one needs, as those of an array do.
    waits
        The jobs of the same notebook that a job waits for, by name; of those that wait for any.

    Returns
    -------
    dict
        ``networks``: the notebooks that train and the split that teaches, if they name one, for
        each replicate by how it ends a job's name.
        ``together``: of a notebook whose jobs are short, the values of the axis whose jobs share a
        process and a kernel, where each of them exists for all values of the other axes.
        ``largest``: by notebook, what its largest job needs; empty unless they are ``alike``.
        ``waits``: as given; ``is_measured``: whether data sets wait for a reference.
    """
    by_notebook: dict[str, list[dict[str, str]]] = {}
    asked: dict[str, list[Mapping[str, int]]] = {}
    networks: dict[str, list[list[str]]] = {}
    for name in names:
        notebook, axes = name.partition("__")[0], axes_of(name)
        by_notebook.setdefault(notebook, []).append(axes)
        asked.setdefault(notebook, []).append(needs[name])
        known = networks.setdefault(axes["nested"], [])
        network = [notebook, *(axes[axis] for axis in AXES[notebook][2:])]
        if notebook.startswith("03_") and network not in known:
            known.append(network)
    together = {}
    for notebook, axis in SHARED.items():
        places = by_notebook.get(notebook, [])
        values = list(dict.fromkeys(place[axis] for place in places))
        others = {tuple(place[key] for key in place if key != axis) for place in places}
        minutes = max((need["runtime_min"] for need in asked.get(notebook, [])), default=0)
        is_short = minutes <= SHORT_MIN and minutes * len(values) <= SHARED_MIN
        is_short = is_short and not any(need["gpus"] for need in asked.get(notebook, []))
        if values and is_short and len(others) * len(values) == len(places):
            together[notebook] = values
    largest = {
        notebook: {key: max(need[key] for need in each) for key in DEFAULT_NEED}
        for notebook, each in asked.items()
        if alike
    }
    return {
        "networks": networks,
        "together": together,
        "largest": largest,
        "waits": {name: list(others) for name, others in waits.items()},
        "is_measured": REFERENCE in by_notebook,
    }


def done(name: str) -> str:
    """Return the file that proves that a job is done."""
    return f"jobs/{name}/done.json"


class Rules:
    """A run as the rules of the workflow see it; their working folder is the run's."""

    def __init__(self, run_folder: Path = Path()) -> None:
        self._folder = run_folder
        self._content = json.loads((run_folder / RULES_FILE).read_text(encoding="utf-8"))

    @cached_property
    def _jobs(self) -> list[dict[str, Any]]:
        """The plan: only the first process of a run reads it, and the job of the summary."""
        text = (self._folder / PLAN_FILE).read_text(encoding="utf-8")
        jobs: list[dict[str, Any]] = json.loads(text)["jobs"]
        return jobs

    @cached_property
    def _needs(self) -> dict[str, dict[str, int]]:
        path = self._folder / RESOURCES_FILE
        needs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {name: DEFAULT_NEED | need for name, need in needs.items()}

    def all_done(self, _: Wildcards) -> list[str]:
        """Return the proofs of all jobs of the plan."""
        return [done(job["name"]) for job in self._jobs]

    def before_summary(self, _: Wildcards) -> list[str]:
        """Return the proofs of what the summary reads: trainings and comparisons."""
        jobs = self._jobs
        return [done(job["name"]) for job in jobs if job["notebook"] in LAST_OF_A_CONDITION]

    def before_dataset(self, wildcards: Any) -> list[str]:
        """Return the proof of the reference of a replicate, if counts are measured."""
        is_measured = self._content.get("is_measured")
        return [done(REFERENCE + wildcards.nested)] if is_measured else []

    def earlier(self, notebook: str) -> Callable[[Any], list[str]]:
        """Return what gives the proofs of the same notebook's jobs that these jobs wait for."""
        waits = self._content.get("waits", {})

        def proofs(wildcards: Any) -> list[str]:
            names = [
                other for name in self.names(notebook, wildcards) for other in waits.get(name, ())
            ]
            return [done(name) for name in dict.fromkeys(names)]

        return proofs

    def trained(self, wildcards: Any) -> list[str]:
        """Return the proofs of the networks of a dose and view, if its replicate trains any."""
        networks = self._content["networks"].get(wildcards.nested, [])
        place, nested = (wildcards.dose, wildcards.view), wildcards.nested
        return [
            done("__".join((notebook, *place, *split)) + nested) for notebook, *split in networks
        ]

    def together(self, notebook: str) -> list[str]:
        """Return the values of the axis whose jobs share a kernel; else its wildcard."""
        values: list[str] = self._content["together"].get(notebook, [])
        return values or [f"{{{SHARED[notebook]}}}"]

    def names(self, notebook: str, wildcards: Any) -> list[str]:
        """Return the names of the jobs that one process executes in turn."""
        axes, shared = AXES[notebook], SHARED.get(notebook, "")
        values = self._content["together"].get(notebook) or [getattr(wildcards, shared, "")]
        names = []
        for value in values:
            labels = [value if axis == shared else getattr(wildcards, axis) for axis in axes]
            names.append("__".join([notebook, *labels]) + getattr(wildcards, "nested", ""))
        return names

    def need(self, notebook: str, wildcards: Any) -> dict[str, int]:
        """Return what jobs need that run in turn."""
        names = self.names(notebook, wildcards)
        largest = self._content["largest"].get(notebook)
        each = [largest or self._needs.get(name, DEFAULT_NEED) for name in names]
        most = {key: max(need[key] for need in each) for key in DEFAULT_NEED}
        return most | {"runtime_min": sum(need["runtime_min"] for need in each)}

    def threads(self, notebook: str) -> Callable[[Any], int]:
        """Return what says how many threads a job may use."""
        return lambda wildcards: self.need(notebook, wildcards)["threads"]

    def priority(self, notebook: str) -> Callable[[Any], int]:
        """Return what puts long jobs first, or one would be left to the end alone."""
        return lambda wildcards: self.need(notebook, wildcards)["runtime_min"]

    def resources(self, notebook: str, gpus: int | None = None) -> dict[str, Callable[..., int]]:
        """Return what gives a job its memory, minutes and GPUs.

        A job that was ended from outside may have wanted more than it was given.
        """

        def need(name: str, wildcards: Any, attempt: int = 1) -> int:
            return self.need(notebook, wildcards)[name] * attempt

        return {
            "mem_mb": lambda wildcards, attempt: need("mem_mb", wildcards, attempt),
            "runtime": lambda wildcards, attempt: need("runtime_min", wildcards, attempt),
            "gpu": lambda wildcards: need("gpus", wildcards) if gpus is None else int(gpus),
            "attempt": lambda wildcards, attempt: attempt,
        }
