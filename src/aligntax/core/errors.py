"""Every error that aligntax raises on purpose.

    AligntaxError             exit code 1: the work failed
    |-- InputError            exit code 2: something given to aligntax cannot be used (also a ValueError)
    |   |-- LogError          a log file cannot be read, or holds what no log may hold
    |   |-- PairingError      the logs can be read, but do not define the comparison that was asked for
    |   `-- RunError          a run directory cannot be written, or is not one
    |-- TrainingError         exit code 1: a model could not be trained
    `-- MissingExtraError     exit code 2: an optional part is not installed (also an ImportError)

A message says in one sentence what is wrong, where, what was found, what is allowed and what to do.
"""

from __future__ import annotations


class AligntaxError(Exception):
    """Root of the tree; the command line prints the message and exits with ``exit_code``."""

    exit_code = 1


class InputError(AligntaxError, ValueError):
    """Something given to aligntax cannot be used."""

    exit_code = 2


class LogError(InputError):
    """A log file cannot be read, or holds what no log may hold."""


class PairingError(InputError):
    """The logs can be read, but do not define the comparison that was asked for."""


class RunError(InputError):
    """A run directory cannot be written, or is not one."""


class TrainingError(AligntaxError):
    """A model could not be trained."""


class MissingExtraError(AligntaxError, ImportError):
    """An optional part is not installed."""

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; add it with: pip install 'aligntax[{extra}]'")
