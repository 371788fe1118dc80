r"""Run an ablation on real tagged clips.

    .venv/bin/python tools/bench/real.py --videos ../shared/data/clips --seeds 0 1 2
    .venv/bin/python tools/bench/real.py --videos ../shared/data/webclips --ablation small \
        --set evaluation.selection=tags \
        --set model.weights=../shared/data/weights/tf_efficientnet_lite2_fp16.safetensors

`papers`: LayerCAM, seeds, + CRF, + size, + pooling (TCAM), + joint term (CoLo-CAM). Each row adds a term to the one
before, as in Table 2 of CoLo-CAM (arXiv:2303.09044); the last two both extend `+ crf + size`. `small`: the recipe
`small` from its CAM to all of it, and CoLo-CAM with a joint term of features. `family`: CAM methods, and each method's
loss on pixels drawn from CAMs as they are (raw) or walked, with the network and the optimizer of `small`.

A row is one `tcam train` run per seed; the runs of a seed share classifier and CAMs. Prints Markdown
(for docs/results.md) on stdout and draws the maps of every row into RUNS/report/report.html. A finished run is used as
it is, and an interrupted one is continued. Minutes are wall time of a row's own work: of classifier, evaluation and
report for LayerCAM, of localizer, evaluation and report for the others. The CAM cache, which the runs of a seed share,
is named separately.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import REPO, commit, header

BENCH = "bench.json"
SOME_VIDEOS_FAILED = 4

Rows = dict[str, tuple[str, tuple[str, ...]]]
"""Config file and settings of each row, by its name in the tables."""

NO_POOLING, NO_CRF, NO_SIZE = "localizer.temporal.neighbours=0", "localizer.crf.weight=0", "localizer.size.weight=0"
ONE_ROUND, RAW = "localizer.rounds=1", "cam.refine=none"
PIXELS = (
    *("localizer.soft.weight=0", "localizer.seeds.weight=1"),
    *("localizer.seeds.foreground=50", "localizer.seeds.background=50"),
    *("localizer.seeds.foreground_fraction=0.3", "localizer.seeds.background_fraction=0.5"),
)
FULL = (*PIXELS, "localizer.crf.weight=1.2e-9", "localizer.size.weight=0.01")
POOLED = (*FULL, "localizer.temporal.neighbours=1")
COLOUR = (*FULL, "localizer.joint.space=colour")
ABLATIONS: dict[str, Rows] = {
    "papers": {
        "layercam": ("tcam.yaml", ("method=cam",)),
        "seeds": ("tcam.yaml", (NO_POOLING, NO_CRF, NO_SIZE)),
        "+ crf": ("tcam.yaml", (NO_POOLING, NO_SIZE)),
        "+ crf + size": ("tcam.yaml", (NO_POOLING,)),
        "tcam": ("tcam.yaml", ()),
        "colocam": ("colocam.yaml", ()),
    },
    "small": {
        "prior": ("tcam-small.yaml", ("method=cam",)),
        "cam": ("tcam-small.yaml", ("method=cam", "cam.method=cam")),
        "raw cams": ("tcam-small.yaml", (ONE_ROUND, RAW)),
        "walked cams": ("tcam-small.yaml", (ONE_ROUND,)),
        "walked cams + features": ("colocam-small.yaml", (ONE_ROUND,)),
        "tcam - average": ("tcam-small.yaml", ("localizer.average_rounds=false",)),
        "tcam": ("tcam-small.yaml", ()),
        "colocam": ("colocam-small.yaml", ()),
    },
    "family": {
        "prior": ("tcam-small.yaml", ("method=cam",)),
        "cam": ("tcam-small.yaml", ("method=cam", "cam.method=cam")),
        "layercam": ("tcam-small.yaml", ("method=cam", "cam.method=layercam")),
        "partial ce, raw": ("tcam-small.yaml", (ONE_ROUND, *PIXELS, RAW)),
        "partial ce, walked": ("tcam-small.yaml", (ONE_ROUND, *PIXELS)),
        "tcam, raw": ("tcam-small.yaml", (ONE_ROUND, *POOLED, RAW)),
        "tcam, walked": ("tcam-small.yaml", (ONE_ROUND, *POOLED)),
        "colocam colour, raw": ("colocam-small.yaml", (ONE_ROUND, *COLOUR, RAW)),
        "colocam colour, walked": ("colocam-small.yaml", (ONE_ROUND, *COLOUR)),
        "colocam features, raw": ("colocam-small.yaml", (ONE_ROUND, *FULL, RAW)),
        "colocam features, walked": ("colocam-small.yaml", (ONE_ROUND, *FULL)),
        "recipe small": ("tcam-small.yaml", ()),
    },
}
"""The first row of each trains the classifier that the others take over, and is always included."""
BASELINES = {"papers": "tcam", "small": "raw cams", "family": "partial ce, raw"}
"""The row that others are compared with."""
MORE = {
    "transductive": ("train (transductive)", ("--split", "train"), "evaluation-train"),
    "walked": ("test, maps walked in prediction", ("--refine", "joint"), "evaluation-joint"),
}
"""Further evaluations by their option: the name of their tables, the options of ``tcam evaluate``, the folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--configs", type=Path, default=REPO / "configs/real", help="folder of the config files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ablation", choices=ABLATIONS, default="papers")
    parser.add_argument("--rows", nargs="+", help="all by default; the first one is always included")
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "bench-real")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, for all rows")
    parser.add_argument(
        "--transductive", action="store_true", help="also evaluate on the training videos (trained on without boxes)"
    )
    parser.add_argument("--walked", action="store_true", help="also evaluate with maps that are walked in prediction")
    parser.add_argument("--ddt", action="store_true", help="also score DDT, which is not trained")
    options = parser.parse_args()
    options.videos, options.runs = options.videos.resolve(), options.runs.resolve()
    known = list(ABLATIONS[options.ablation])
    if unknown := set(options.rows or ()) - set(known):
        parser.error(f"--rows: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    rows = [name for name in known if name == known[0] or name in (options.rows or known)]
    check_runs(rows, options)
    folders: dict[str, list[Path]] = {name: [] for name in rows}
    for seed in options.seeds:
        for name in rows:
            folders[name].append(train(name, seed, options))
            for _, arguments, output in more_evaluations(options):
                evaluate(folders[name][-1], output, options.videos, arguments)
    if options.ddt:
        evaluate(folders[rows[0]][0], "evaluation-ddt", options.videos, ("--baseline", "ddt"))
    report(folders, options)


def more_evaluations(options: argparse.Namespace) -> list[tuple[str, tuple[str, ...], str]]:
    return [more for option, more in MORE.items() if getattr(options, option)]


def run_folder(name: str, seed: int, runs: Path) -> Path:
    return runs / f"{run_name(name, seed)}-001"


def run_name(name: str, seed: int) -> str:
    plain = name.removeprefix("+ ").replace(" - ", "-no-").replace(" + ", "+").replace(", ", "-").replace(" ", "-")
    return f"{plain}-seed{seed}"


def settings_of(name: str, seed: int, options: argparse.Namespace) -> tuple[Path, list[str]]:
    file, overrides = ABLATIONS[options.ablation][name]
    return options.configs.resolve() / file, [*options.set, *overrides, f"seed={seed}"]


def check_runs(rows: Sequence[str], options: argparse.Namespace) -> None:
    """Check settings, and that existing runs have the same ones, before anything is trained."""
    from pipelines.config.schema import load_config
    from tcam.errors import TcamError

    for name in rows:
        for seed in options.seeds:
            folder = run_folder(name, seed, options.runs)
            try:
                wanted = load_config(*settings_of(name, seed, options))
                if not folder.exists():
                    continue
                made = load_config(folder / "config.yaml")
            except TcamError as error:
                sys.exit(f"error: row '{name}': {error}")
            weights = REPO / wanted.model.weights  # a run stores the absolute path of a file
            stored = str(weights.resolve()) if weights.is_file() else wanted.model.weights
            model = wanted.model.model_copy(update={"weights": stored})
            videos = json.loads((folder / "env.json").read_text())["videos"]
            if made != wanted.model_copy(update={"model": model}) or videos != str(options.videos):
                sys.exit(f"error: {folder} has other settings or videos: name another folder with --runs")


def train(name: str, seed: int, options: argparse.Namespace) -> Path:
    """Return the finished run of one row and seed; train it, or continue it, if necessary."""
    config, overrides = settings_of(name, seed, options)
    folder = run_folder(name, seed, options.runs)
    print(f"real: {name}, seed {seed}", file=sys.stderr)
    train_into(folder, options.videos, ["--config", config, *(part for text in overrides for part in ("--set", text))])
    return folder


def train_into(folder: Path, videos: Path, settings: Sequence[object]) -> None:
    """Train the run ``folder`` (``<name>-001``), or continue it; a finished run is left as it is."""
    if (folder / "evaluation" / "results.json").is_file():
        return
    command = ["train", "--resume", folder]
    if not folder.exists():
        name = folder.name.removesuffix("-001")
        command = ["train", "--videos", videos, "--runs", folder.parent, "--name", name, *settings]
    began, began_s = time.time(), time.monotonic()
    try:
        tcam(command)
    finally:
        if folder.is_dir():  # an interrupted run adds up its attempts
            add_minutes(folder, (time.monotonic() - began_s) / 60, cams_minutes(folder / "cams", began))


def add_minutes(folder: Path, total: float, cams: float) -> None:
    before = read_bench(folder)
    found = {"minutes": before.get("minutes", 0) + total - cams, "cams_minutes": before.get("cams_minutes", 0) + cams}
    (folder / BENCH).write_text(json.dumps({**found, "commit": commit()}) + "\n")


def cams_minutes(stage: Path, began: float) -> float:
    """Return the minutes that the CAM cache took, 0 if it was copied from another run or existed before."""
    first, last = stage / "started.json", stage / "stage.json"
    if not last.is_file() or first.stat().st_mtime < began:  # copied files keep their times
        return 0.0
    return (last.stat().st_mtime - first.stat().st_mtime) / 60


def read_bench(folder: Path) -> dict[str, Any]:
    return json.loads((folder / BENCH).read_text()) if (folder / BENCH).is_file() else {}


def evaluate(folder: Path, name: str, videos: Path, arguments: Sequence[str]) -> None:
    output = folder / name
    if not (output / "results.json").is_file():
        tcam(["evaluate", folder, "--videos", videos, *arguments, "-o", output])


def tcam(arguments: Sequence[object]) -> None:
    command = [str(part) for part in (Path(sys.executable).with_name("tcam"), *arguments)]
    done = subprocess.run(command, check=False, cwd=REPO, stdout=sys.stderr)
    if done.returncode not in (0, SOME_VIDEOS_FAILED):
        sys.exit(done.returncode)


def report(folders: Mapping[str, Sequence[Path]], options: argparse.Namespace) -> None:
    """Print the tables of each split and draw the maps of the first seed."""
    from tables import collect, score_table, seed_choices, seed_table

    from pipelines.evaluation.ddt import DDT
    from pipelines.evaluation.results import read_evaluation
    from pipelines.models.run import load_run

    first = next(iter(folders))
    run = load_run(folders[first][0])
    frames = Counter(item.video_id for item in run.truth)
    videos = {record.video_id: (record.label, frames[record.video_id]) for record in run.index.records}
    minutes = {name: [read_bench(folder).get("minutes") for folder in made] for name, made in folders.items()}
    facts = describe(folders, options)
    print(facts)
    tables = {"test": "evaluation"} | {name: output for name, _, output in more_evaluations(options)}
    for split, results_of in tables.items():
        results = collect(
            {name: [read_evaluation(folder / results_of).scores for folder in made] for name, made in folders.items()},
            baselines_of=first,
        )
        if split == "test" and options.ddt:
            rows = dict(read_evaluation(folders[first][0] / "evaluation-ddt").scores)
            results = {DDT: {"none": [rows[DDT]]}} | results
        scores = score_table(results, minutes if split == "test" else {})
        print("\n".join(["", f"**{split}**, {scores[0]}", *scores[1:]]))
        for choice in seed_choices(results):
            by_seed = seed_table(results, options.seeds, videos, baseline=BASELINES[options.ablation], choice=choice)
            print("\n".join(["", f"**{split}**, {by_seed[0]}", *by_seed[1:]]))
    page = draw_report({name: made[0] for name, made in folders.items()}, options, facts)
    print(f"real: maps of every row: {page}", file=sys.stderr)


def describe(folders: Mapping[str, Sequence[Path]], options: argparse.Namespace) -> str:
    """Return a line that names all that the tables depend on besides the settings."""
    facts = [f"seeds {', '.join(map(str, options.seeds))}"]
    benches = [read_bench(folder) for row in folders.values() for folder in row]
    commits = {str(bench["commit"]) for bench in benches if bench}
    if not commits <= {commit()}:
        facts.append(f"runs of commit {', '.join(sorted(commits))}")
    if cams := sum(bench.get("cams_minutes", 0) for bench in benches):
        facts.append(f"a seed's CAM cache took {cams / len(options.seeds):.1f} min more")
    return header(*facts)


def draw_report(folders: Mapping[str, Path], options: argparse.Namespace, facts: str) -> Path:
    """Write RUNS/report: the table of the first seed, and each row's maps of every test video."""
    from pipelines.evaluation.results import read_evaluation
    from pipelines.models.run import load_localizers, load_run, main_localizer
    from pipelines.models.thresholds import read_thresholds
    from pipelines.report.page import write_report
    from pipelines.report.run import draw_maps

    localizers, thresholds, table = {}, {}, []
    for name, folder in folders.items():
        run = load_run(folder)
        main = main_localizer(run)
        localizers[name] = load_localizers(run)[main]
        thresholds[name] = read_thresholds(folder / "evaluation" / "thresholds.json")[0][main]
        rows = read_evaluation(folder / "evaluation").scores
        table += [(name, result) for method, result in rows if method == main]
        baselines = [row for row in rows if row[1].threshold is None]
    table.sort(key=lambda row: row[1].protocol.threshold_choice, reverse=True)  # validation, tags, oracle
    return write_report(
        options.runs,
        title=f"Ablation, seed {options.seeds[0]}",
        rows=[*baselines, *table],
        pictures=draw_maps(
            run.index.of_split("test"),
            run.truth,
            localizers,
            thresholds,
            class_names=run.index.class_names,
            size=run.input_size,
        ),
        protocol=[facts],
        lead="Each row adds a term of the loss. Table and pictures are of one seed.",
    )


if __name__ == "__main__":
    main()
