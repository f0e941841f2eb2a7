"""The errors that commands report in one line, by whose they are: the user's, another process's, or the run's."""


class UserError(ValueError):
    """An error in the user's input. The message is one line: what is wrong, where, and what to do next. Exit code 2."""


class OtherProcessFailed(RuntimeError):
    """Another process of the same command failed first; that process reports the reason."""


class RunFailed(RuntimeError):
    """A run with valid input that cannot continue, such as one whose loss is no longer finite. Exit code 1."""
