"""Errors that carry the exit code of the command that meets them."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StudyError(Exception):
    """A job failed or evidence is missing."""

    exit_code = 1


class LastingError(StudyError):
    """A job failed for a reason of its own: the same job would fail again."""


class DiskFullError(StudyError):
    """There is no room for a file; the same job may succeed once there is."""


class InputError(StudyError):
    """The call was wrong: an unknown option or value, a missing or broken input."""

    exit_code = 2
