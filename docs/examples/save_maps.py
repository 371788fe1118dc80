"""Localize in images and save each localization map as a grey PNG, with its box in the name.

python docs/examples/save_maps.py runs/pets-001 maps/ photo1.jpg photo2.jpg
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import tcam


def main() -> None:
    """Read the arguments and write a PNG for each image, of the image's size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or a file of tcam export")
    parser.add_argument("output", type=Path, help="folder for the maps")
    parser.add_argument("images", type=Path, nargs="+")
    arguments = parser.parse_args()

    localizer = tcam.Localizer(arguments.run)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for path in arguments.images:
        image = Image.open(path).convert("RGB")
        (found,) = localizer(np.asarray(image)[None])
        grey = Image.fromarray((255 * found.map).astype(np.uint8)).resize(image.size)
        box = "none" if found.box is None else "-".join(f"{side:.0f}" for side in found.box)
        target = arguments.output / f"{path.stem}-{found.class_name}-{box}.png"
        grey.save(target)
        print(target)


if __name__ == "__main__":
    main()
