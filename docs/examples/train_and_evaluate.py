"""Train two methods on a folder of tagged videos and compare their CorLoc.

python docs/examples/train_and_evaluate.py videos/ --methods cam tcam
"""

import argparse

import pandas as pd

import tcam


def main() -> None:
    """Read the arguments, train, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder with one subfolder per tag, and boxes.csv to measure with")
    parser.add_argument("--methods", nargs="+", default=["cam", "tcam"])
    parser.add_argument("--config", help="YAML file of settings")
    parser.add_argument("--epochs", type=int, help="of both stages; default: those of the settings")
    arguments = parser.parse_args()

    settings = {}
    if arguments.epochs is not None:
        settings = {"classifier.epochs": arguments.epochs, "localizer.epochs": arguments.epochs}
    tables = []
    for method in arguments.methods:
        run = tcam.train(
            arguments.videos, config=arguments.config, settings={**settings, "method": method}, name=method
        )
        tables.append(tcam.evaluate(run, quiet=True).assign(run=run.name))
    table = pd.concat(tables)
    print(table[["run", "method", "threshold_choice", "macro", "micro"]].to_string(index=False))


# Videos are read by child processes, which import this file: keep the guard.
if __name__ == "__main__":
    main()
