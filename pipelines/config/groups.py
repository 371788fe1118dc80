"""What groups of settings are made of, and those of the classifier's baselines; ``schema.py`` puts all together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class Settings(BaseModel):
    """A group of settings: no other keys, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class HideAndSeekSettings(Settings):
    """Frames with hidden patches (Hide-and-Seek)."""

    patches: tuple[Positive, ...] = Field((16, 32, 44, 56), min_length=1, description="sides drawn from, in pixels")
    hide: Fraction = Field(0.5, description="chance of each patch")


class CutMixSettings(Settings):
    """Frames with a window of another (CutMix)."""

    probability: Fraction = Field(1.0, description="of mixing a batch")


class AdlSettings(Settings):
    """Feature maps without their most attended region, or weighed by attention (ADL)."""

    drop_rate: Fraction = Field(0.75, description="chance of taking the region out")
    threshold: Fraction = Field(0.8, description="where the region begins, as a share of the attention's maximum")
    levels: Positive = Field(3, description="of the feature pyramid, from the last, that it acts on")


ACOL_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "classifier": {"baseline": "acol"},
    "model": {"pooling": "acol"},
    "cam": {"method": "cam"},
}
"""What either of the first two brings along."""


def asks_for_acol(values: Mapping[str, Any]) -> bool:
    """Whether unchecked settings name ACoL, as a baseline or as a class head."""
    named = (("classifier", "baseline"), ("model", "pooling"))
    groups = ((values.get(group), name) for group, name in named)
    return any(isinstance(group, Mapping) and group.get(name) == "acol" for group, name in groups)
