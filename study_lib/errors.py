"""Errors that carry the exit code of the command that meets them."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StudyError(Exception):
    """A job failed or evidence is missing.

    Attributes
    ----------
    exit_code
        With what the command line ends: 1, or 2 if the call was wrong.

    Examples
    --------
    Every error that says what a person can do is one of these, wrong calls too:

    >>> import study_lib as study
    >>> try:
    ...     study.open_run("a-folder-without-a-run")
    ... except study.StudyError as error:
    ...     print(type(error).__name__, error.exit_code)
    InputError 2
    """

    exit_code = 1


class LastingError(StudyError):
    """A job failed for a reason of its own: the same job would fail again."""


class DiskFullError(StudyError):
    """There is no room for a file; the same job may succeed once there is."""


class InputError(StudyError):
    """The call was wrong: an unknown option or value, a missing or broken input.

    Examples
    --------
    The message says what was found and what to do:

    >>> import study_lib as study
    >>> try:
    ...     study.load_design("huge.yaml")
    ... except study.InputError as error:
    ...     print(error)
    huge.yaml: no such file; give the path of a preset in YAML
    """

    exit_code = 2
