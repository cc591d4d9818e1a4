"""Leave the text of stored outputs in notebooks; take pictures and times of execution out.

Reports have the pictures; times would be a change of every cell, whatever changed.

python workflow/text_outputs.py notebooks/*.ipynb
"""

import sys
from pathlib import Path

import nbformat


def main() -> None:
    """Rewrite each notebook that is named."""
    for name in sys.argv[1:]:
        notebook = nbformat.read(name, as_version=4)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                    del output["data"][kind]
        nbformat.write(notebook, Path(name))


if __name__ == "__main__":
    main()
