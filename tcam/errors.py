"""What can go wrong in the world outside the code: each error says what was expected, what was found, what to do.

A caller's mistake (a wrong shape, a negative count) is a ``ValueError``. The command line prints one line for each
of these and leaves with ``exit_code``.
"""

from __future__ import annotations


class TcamError(Exception):
    """Something in the world is not as it should be; the message names it and the remedy."""

    exit_code = 1


class DataError(TcamError):
    """Videos, tables or settings are missing or invalid."""

    exit_code = 3


class VideoError(DataError):
    """One video cannot be used; the others go on."""


class ConfigError(TcamError):
    """A flag or a setting is wrong."""

    exit_code = 2


class MissingPartError(TcamError):
    """An optional package, a weight file or the network is not there."""

    exit_code = 5


class WeightsError(MissingPartError):
    """Weights are missing or do not fit the network."""


class NetworkError(TcamError):
    """A download is not possible or not allowed; what was fetched so far stays, and a rerun goes on from there."""

    exit_code = 6


class StreamError(TcamError):
    """A live source cannot be reached, or went away and did not come back."""

    exit_code = 6


class ForkError(TcamError):
    """A localizer cannot work in a process forked from the one that loaded it."""


class TrainingError(TcamError):
    """Training cannot go on (a loss is not finite)."""


def one_line(error: BaseException) -> str:
    """Return an error as one line of at most 300 characters: our own message, or the type and message of any other."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, TcamError) else f"{type(error).__name__}: {text or 'no message'}")[:300]
