"""The two ways a command can end badly; everything else is a defect."""


class UsageError(ValueError):
    """The command line, or something it names, is wrong (exit code 2). The message says what, and
    what would be right."""


class FailedRun(RuntimeError):
    """It failed under way: checksum, full disk, non-finite numbers (exit code 1). The message says
    where."""
