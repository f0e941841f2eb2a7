"""What a user can mend, told apart from what is our own mistake."""


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do next."""


class OtherProcessFailed(RuntimeError):
    """Another process of the command failed before this one, and says why."""


class RunFailed(RuntimeError):
    """A run that cannot go on although its input was valid, such as a loss that is no longer finite."""
