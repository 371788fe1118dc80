"""Which settings a training starts from when the user names none: a shipped config that fits the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.config.shipped import configs_folder
from pipelines.data.sources import find_dataset
from pipelines.run.console import console

SMALL: Final = "real/tcam-small"
MOST_SMALL: Final = 500
"""Training videos up to which the small recipe is taken."""

_OPEN: Final = ("seed=", "device=", "precision=", "save_every_s=", "data.", "model.weights=", "evaluation.")
"""Settings that say nothing about method or network: with these alone, a recipe is chosen."""


def choose_recipe(videos: Path, overrides: Sequence[str]) -> Path | None:
    """Return the config that fits the data, and print which one and why; None: the published settings.

    A setting of method or network, such as ``--method`` or ``--backbone``, asks for the published settings.

    Raises:
        DataError: the folder holds no videos to train from, or is no data set.
    """
    if not all(override.startswith(_OPEN) for override in overrides):
        return None
    count = find_dataset(videos).count(videos)
    if count is None or count > MOST_SMALL:
        found = "a data set of the papers" if count is None else f"{count} training videos, above {MOST_SMALL}"
        console.print(f"recipe: large, the published settings ({found})")
        return None
    console.print(
        f"recipe: small, configs/{SMALL}.yaml ({count} training videos, at most {MOST_SMALL}); "
        "'--method tcam' takes the published settings",
        markup=False,
    )
    return configs_folder() / f"{SMALL}.yaml"
