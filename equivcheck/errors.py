"""What a user can do wrong, each told in one line; the command line turns these into exit status 2."""

__all__ = ["DeviceLost", "ReferenceRaises", "ReportError", "ToolError", "UnfitResult", "UsageError"]


class UsageError(Exception):
    """The pair could not be judged: the message names what was given, what is allowed and what to do."""


class DeviceLost(UsageError):
    """A kernel left the GPU unusable for this process: the message names the case, the error, and how to find the kernel."""


class ReportError(UsageError):
    """A report file that cannot be trusted: the message names the file and what is wrong with it."""


class ToolError(Exception):
    """Equivcheck's own code raised: it says nothing of the pair, and nothing of the pair may be read off it."""


class ReferenceRaises(Exception):
    """The original raises on a case, in the way in which it was run: then nothing is asked of the candidate there."""


class UnfitResult(TypeError):
    """A forward pass returned what cannot be compared: no tensor, or one that has no values of its own to read."""
