"""Errors that are not mistakes in the calling code. Each says what was expected, what was found and what to do.

A caller's mistake (a wrong shape, a negative count) is a ``ValueError``. The command line prints each of these errors
in one line and exits with its ``exit_code``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_NAMES: Final = 20


class TcamError(Exception):
    """Base class: data, settings or the environment are not as expected; the message names the remedy."""

    exit_code = 1


class DataError(TcamError):
    """Videos, tables or settings are missing or invalid."""

    exit_code = 3


class VideoError(DataError):
    """One video cannot be used; the others can."""


class ConfigError(TcamError):
    """A flag or a setting is invalid."""

    exit_code = 2


class MissingPartError(TcamError):
    """An optional package, a weight file or the network is not available."""

    exit_code = 5


class WeightsError(MissingPartError):
    """Weights are missing or do not fit the network."""


class NetworkError(TcamError):
    """A download failed or is not allowed; the part fetched so far is kept, and a rerun continues from there."""

    exit_code = 6


class StreamError(TcamError):
    """A live source cannot be reached, or was lost and did not return."""

    exit_code = 6


class ForkError(TcamError):
    """A localizer cannot work in a process forked from the one that loaded it."""


class TrainingError(TcamError):
    """Training cannot continue, for example because a loss is not finite."""


def some_of(names: Sequence[str]) -> str:
    """Return names as text for one line; of more than 20, the first and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more} more"


def one_line(error: BaseException) -> str:
    """Return an error as one line of at most 300 characters: our own message, or the type and message of any other."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, TcamError) else f"{type(error).__name__}: {text or 'no message'}")[:300]
