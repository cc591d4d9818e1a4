"""Run ``python -m study_lib``, the same as the command ``study``."""

from study_lib.cli.main import main

main()
