"""Spoil files of one reader where its code has not been yet: coverage-guided, with atheris.

    pip install atheris                                       # no part of the environment
    python tests/fuzzing/guided.py yaml -runs=20000           # options are libFuzzer's
    python tests/fuzzing/guided.py contract -max_total_time=600 -artifact_prefix=faults/

The campaign beside this file spoils blindly and is what the figures are about; this looks longer
into one reader. Any error but one of the study ends it, as does a file that takes two seconds; its
bytes are kept where -artifact_prefix says, the folder it was started in by default.
"""

import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("guided.py needs atheris: pip install atheris (Linux; Python 3.11 to 3.13)")

with atheris.instrument_imports(include=["study_lib", "yaml", "zipfile"]):
    import study_lib.networks.checkpoints
    import study_lib.networks.pinn.bundle  # noqa: F401  # targets import them too late to be looked into
    from fuzzing.targets import NAMES, target
    from study_lib.errors import StudyError

TARGETS = tuple(name for group in NAMES.values() for name in group)
LIMITS = ("-timeout=2", "-rss_limit_mb=2048")


def main() -> None:
    """Look until a fault is found or the options say stop."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: guided.py TARGET [options]; TARGET is one of {', '.join(TARGETS)}")
    warnings.simplefilter("ignore")  # not what is looked for; they would drown what is found
    with tempfile.TemporaryDirectory() as scratch:
        folder, seeds = Path(scratch) / "files", Path(scratch) / "seeds"
        folder.mkdir()
        seeds.mkdir()
        reader = target(sys.argv[1], folder)
        for number, content in enumerate(reader.sound):
            (seeds / str(number)).write_bytes(content)

        def read(content: bytes) -> None:
            path = folder / reader.file
            path.write_bytes(content)
            with suppress(StudyError):  # refusing is right; any other error ends the search
                reader.read(path)

        atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[2:], str(seeds)], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
