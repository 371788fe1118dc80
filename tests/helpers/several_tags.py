"""A small folder of videos of which some have two tags; a helper of these tests."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.encoded import encode

TAGS = {
    "a.mp4": ("train", "fish"),
    "b.mp4": ("train", "beetle"),
    "c.mp4": ("train", "beetle", "fish"),
    "d.mp4": ("val", "beetle", "fish"),
    "e.mp4": ("test", "beetle", "fish"),
}
"""Split and tags of each video."""
BOXES = (
    ("d.mp4", 1, "fish", (0, 0, 64, 64)),
    ("d.mp4", 2, "beetle", (0, 0, 64, 64)),
    ("e.mp4", 0, "fish", (0, 0, 64, 40)),
    ("e.mp4", 5, "fish", (0, 0, 64, 24)),
    ("e.mp4", 5, "beetle", (16, 16, 48, 48)),
)


def write_several_tags(root: Path) -> Path:
    """Write 5 videos of 8 frames of 64 x 64 and tables with a row for each tag; give back ``root``."""
    root.mkdir(parents=True)
    for number, name in enumerate(TAGS):
        encode(root / name, frames=8, size=(64, 64), options={"crf": f"{20 + number}"})
    rows = [f"{name},{tag},{split}" for name, (split, *tags) in TAGS.items() for tag in tags]
    (root / "clips.csv").write_text("\n".join(["video,class,split", *rows]) + "\n")
    boxes = [f"{name},{frame},{tag},{','.join(map(str, box))}" for name, frame, tag, box in BOXES]
    (root / "boxes.csv").write_text("\n".join(["video,frame,class,x0,y0,x1,y1", *boxes]) + "\n")
    return root
