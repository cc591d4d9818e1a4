"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

PhaseC = Annotated[Path, typer.Option(help="Folder that `study generate` wrote.")]
PhaseD = Annotated[Path, typer.Option(help="Folder that `study overlap` wrote.")]
PhaseE = Annotated[Path, typer.Option(help="Folder that `study train` wrote.")]
PhaseF = Annotated[Path, typer.Option(help="Folder that `study reconstruct` wrote.")]
ArtifactRoot = Annotated[Path, typer.Option(help="Where results and the manifest go.")]
Dose = Annotated[float | None, typer.Option(help="Only this dose; default: all.")]
View = Annotated[str | None, typer.Option(help="Only this view; default: all.")]
Gridsize = Annotated[int | None, typer.Option(help="Only views of this gridsize.")]
Split = Annotated[str | None, typer.Option(help="Only train or test; default: both.")]
Preset = Annotated[str, typer.Option(help="Preset or the path of a YAML file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value, repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the jobs; write nothing.")]
