"""How a command ends: exit code 0; 1 for a failed run; 2 for a user error; 130 for an interrupt."""

from __future__ import annotations

import errno

from eircli.common.errors import RunFailed, UserError

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


def exit_code(error: Exception) -> int:
    """The exit code that an error leads to."""
    return USER_ERROR if isinstance(error, UserError) or _no_room(error) else FAILED


def one_line(error: Exception) -> str:
    """What is wrong, and what to do next."""
    if isinstance(error, UserError):
        # A data loader's worker sends its error with the traceback before it.
        return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    if isinstance(error, RunFailed):
        return str(error)
    if _no_room(error):
        return f"{getattr(error, 'filename', None) or 'disk'}: no room left on the disk; free some and run the command again"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (eir --debug … shows the traceback)"


def _no_room(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
