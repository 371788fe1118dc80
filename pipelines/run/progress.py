"""The progress of work on many items."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the work; ``slowest`` names the item that took longest so far."""

    done: int
    failed: int
    total: int
    elapsed_s: float
    slowest: str = ""
    slowest_s: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Items per second so far."""
        return self.done / max(self.elapsed_s, 1e-9)

    @property
    def eta_s(self) -> float:
        """Estimated seconds left."""
        return (self.total - self.done) / max(self.rate_per_s, 1e-9)

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.eta_s), 60)
        return (
            f"{self.failed} failed, {self.rate_per_s:.3g}/s, {minutes}:{seconds:02d} left, "
            f"slowest {self.slowest} {self.slowest_s:.1f} s"
        )
