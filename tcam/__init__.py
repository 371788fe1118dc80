"""Weakly-supervised video object localization: TCAM and its family (arXiv 2208.14542, 2303.09044).

The public names are below. Each is loaded at its first use, so that ``import tcam`` stays fast.
"""

from typing import TYPE_CHECKING

__all__ = ["Localizer", "StreamLocalizer", "__version__", "evaluate", "predict", "train"]

__version__: str

if TYPE_CHECKING:  # never at run time: nothing in tcam may use them (.github/decisions/0011-one-import-for-users.md)
    from pipelines.api import Localizer, StreamLocalizer, evaluate, predict, train
else:  # hidden from type checkers, for which any name would exist otherwise

    def __getattr__(name):  # noqa: ANN001, ANN202
        """Load a name of ``__all__``."""
        if name == "__version__":
            from importlib.metadata import version

            return version("tcam")
        if name not in __all__:
            raise AttributeError(f"module 'tcam' has no attribute '{name}'")
        from importlib import import_module

        return getattr(import_module("pipelines.api"), name)

    def __dir__():  # noqa: ANN202
        """Return the public names and everything that is loaded already."""
        return sorted({*globals(), *__all__})
