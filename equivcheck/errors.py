"""What a user can do wrong, each told in one line; the command line turns these into exit status 2."""

__all__ = ["DeviceLost", "ReportError", "UsageError"]


class UsageError(Exception):
    """The pair could not be judged: the message names what was given, what is allowed and what to do."""


class DeviceLost(UsageError):
    """A kernel left the GPU unusable for this process: the message names the case, the error, and how to find the kernel."""


class ReportError(UsageError):
    """A report file that cannot be trusted: the message names the file and what is wrong with it."""
