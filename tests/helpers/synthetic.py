"""The smallest folder of tagged videos that every stage accepts."""

from __future__ import annotations

from pathlib import Path

from pipelines.synthetic.videos import write_synthetic_videos

TINY_SIZE = (64, 64)
TINY_FRAMES = 8
TINY_CLASSES = ("fish", "beetle")


def write_tiny_videos(root: Path) -> Path:
    """Write 2 classes of 2 training, 1 validation and 1 test video, 8 frames of 64 x 64 each; give back ``root``."""
    write_synthetic_videos(
        root, classes=len(TINY_CLASSES), videos_per_class=(2, 1, 1), frames=TINY_FRAMES, size=TINY_SIZE, seed=0
    )
    return root
