"""Compare localizer methods and backbones on a folder of clips; each row is a `tcam train` run per seed.

    .venv/bin/python tools/bench/methods.py --videos ../shared/data/clips --configs configs/real --seeds 0 1 2
    .venv/bin/python tools/bench/methods.py --videos clips --methods tcam fcam --backbones resnet50 mobilenetv2_100 \
        --refine --ddt --set localizer.epochs=20

Prints Markdown on stdout: CorLoc (validation and oracle threshold), MaxBoxAccV2 and temporal stability, as mean ±
sample standard deviation over seeds; milliseconds from a frame to its map on one thread (median; rows take turns);
parameters in millions. `--refine` adds rows with maps refined by a CRF, `--ddt` the untrained baseline. Runs of the
same seed and backbone share classifier and CAMs. A finished run is used as it is, and an interrupted one is continued.
A row has the method's published settings, or those of CONFIGS/<method>.yaml; `--set` overrides both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import REPO, Timings, spread, table_head, table_row

from pipelines.config.methods import METHODS

FIGURES = ("MaxBoxAccV2", "Temporal stability: fragments", "Temporal stability: centre")
TIMED = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--background", type=Path, help="videos without any object; negev needs them")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=[name for name, row in METHODS.items() if not row.negatives]
    )
    parser.add_argument("--backbones", nargs="+", help="timm names; default: that of the settings")
    parser.add_argument("--configs", type=Path, help="folder with a <method>.yaml for each row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "bench-methods")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, for all rows")
    parser.add_argument("--refine", action="store_true", help="also measure maps refined by a CRF (needs tcam[crf])")
    parser.add_argument("--ddt", action="store_true", help="also measure the untrained baseline")
    options = parser.parse_args()
    if "negev" in options.methods and options.background is None:
        parser.error("the row negev needs --background")
    options.videos, options.runs = options.videos.resolve(), options.runs.resolve()
    rows = [(method, backbone) for backbone in options.backbones or [None] for method in options.methods]
    settings = {row: settings_of(*row, options) for row in rows}
    check(settings, refine=options.refine)
    folders = {row: [make(row, seed, settings[row], options) for seed in options.seeds] for row in rows}
    report(folders, options)


def settings_of(method: str, backbone: str | None, options: argparse.Namespace) -> tuple[Path | None, list[str]]:
    overrides = [*options.set, f"method={method}"]
    if backbone is not None:
        overrides.append(f"model.backbone={backbone}")
    if method == "negev":
        overrides.append(f"data.background={options.background.resolve()}")
    return (None if options.configs is None else options.configs.resolve() / f"{method}.yaml"), overrides


def check(settings: Mapping[tuple[str, str | None], tuple[Path | None, list[str]]], *, refine: bool) -> None:
    """Check packages and settings before anything is trained."""
    from pipelines.config.schema import load_config
    from pipelines.pipeline import check_settings
    from tcam.boxes.refine import MeanField
    from tcam.errors import MissingPartError, TcamError

    if refine:
        try:
            MeanField()
        except MissingPartError as error:
            sys.exit(f"error: --refine: {error}")
    for row, chosen in settings.items():
        try:
            check_settings(load_config(*chosen))
        except TcamError as error:
            sys.exit(f"error: row '{row_name(row)}': {error}")


def row_name(row: tuple[str, str | None]) -> str:
    return row[0] if row[1] is None else f"{row[0]}, {row[1]}"


def make(
    row: tuple[str, str | None], seed: int, settings: tuple[Path | None, list[str]], options: argparse.Namespace
) -> Path:
    """Return the finished run of one row and seed."""
    from real import tcam, train_into

    config, overrides = settings
    folder = options.runs / f"{'-'.join(part for part in row if part)}-seed{seed}-001"
    print(f"methods: {row_name(row)}, seed {seed}", file=sys.stderr)
    flags: list[object] = [] if config is None else ["--config", config]
    for text in [*overrides, f"seed={seed}"]:
        flags += ["--set", text]
    train_into(folder, options.videos, flags)
    more = [*(["--refine", "crf"] if options.refine else []), *(["--baseline", "ddt"] if options.ddt else [])]
    if more and not (folder / results_folder(options) / "results.json").is_file():
        tcam(["evaluate", folder, *more, "-o", folder / results_folder(options)])
    return folder


def results_folder(options: argparse.Namespace) -> str:
    """Return the name of the folder, in a run, of the evaluation with all that was asked for."""
    extra = ("-crf" if options.refine else "") + ("-ddt" if options.ddt else "")
    return f"evaluation-bench{extra}" if extra else "evaluation"


def report(folders: Mapping[tuple[str, str | None], Sequence[Path]], options: argparse.Namespace) -> None:
    from real import describe

    from pipelines.evaluation.results import read_evaluation

    evaluations = {
        row_name(row): [read_evaluation(folder / results_folder(options)) for folder in made]
        for row, made in folders.items()
    }
    facts = measure({row_name(row): made[0] for row, made in folders.items()}, refine=options.refine)
    print(describe({row_name(row): made for row, made in folders.items()}, options))
    print("\n".join(["", *method_table(evaluations, facts, refine=options.refine)]))


def measure(folders: Mapping[str, Path], *, refine: bool) -> dict[str, tuple[float, float]]:
    """Return milliseconds per frame and millions of parameters of each row's localizer, by name.

    The localizers take turns on the first frames of the test videos.
    """
    import torch

    from pipelines.models.localizer import NetworkLocalizer
    from pipelines.models.refinement.refined import refined_localizers
    from pipelines.models.run import load_localizers, load_run, main_localizer
    from pipelines.models.run_model import own_threshold
    from tcam.video.dataset import stream_original

    torch.set_num_threads(1)
    localizers: dict[str, tuple[NetworkLocalizer, list[Any]]] = {}
    for name, folder in folders.items():
        run = load_run(folder, device="cpu")
        own = {name: load_localizers(run)[main_localizer(run)]}
        streams = [stream_original(record, size=run.input_size) for record in run.index.of_split("test")]
        frames = [torch.from_numpy(next(stream).pixels[None]) for stream in streams]
        thresholds = {name: own_threshold(run, main_localizer(run))}
        made = refined_localizers(own, thresholds, "crf" if refine else "none", run.config.cam.walk)
        for key, localizer in (own | made).items():
            localizers[key] = localizer, frames
    timings: Timings[str] = Timings(time.thread_time)
    label = torch.tensor([0])
    for turn in range(TIMED):
        timings.take_turns(
            {
                name: partial(localizer, frames[turn % len(frames)], label)
                for name, (localizer, frames) in localizers.items()
            }
        )
    sizes = {name: sum(p.numel() for p in item.network.parameters()) / 1e6 for name, (item, _) in localizers.items()}
    return {name: (1000 * timings.median(name), sizes[name]) for name in localizers}


def method_table(
    evaluations: Mapping[str, Sequence[Any]], facts: Mapping[str, tuple[float, float]], *, refine: bool
) -> list[str]:
    """Return the lines of the table: baselines, then each row at its validation threshold and at its oracle.

    Args:
        evaluations: by row, one ``pipelines.evaluation.results.Evaluation`` per seed.
        facts: milliseconds per frame and millions of parameters, by row; refined maps as "<row> + crf".
        refine: whether the last method of the evaluations has refined maps.
    """
    some = next(iter(evaluations.values()))[0]
    head = ["row", "CorLoc", "CorLoc, oracle", *FIGURES, "ms per frame", "parameters, M"]
    lines = [
        f"{some.num_frames} frames of {some.num_videos} videos; percent; CorLoc at IoU >= 0.5, mean over classes",
        "",
    ]
    lines += table_head(*head).splitlines()
    baselines = dict.fromkeys(score.method for score in some.scores if score.kind == "baseline")
    lines += [table_row(name, *_cells([some], name, "none"), "", "") for name in baselines]
    for row, per_seed in evaluations.items():
        own = per_seed[0].localizers[-1]
        plain = own.removesuffix(" + crf") if refine else own
        for label, method in {row: plain, **({f"{row} + crf": own} if refine else {})}.items():
            time_ms, size = facts[label]
            lines.append(table_row(label, *_cells(per_seed, method, "validation"), f"{time_ms:.0f}", f"{size:.1f}"))
    return lines


def _cells(evaluations: Sequence[Any], method: str, choice: str) -> list[str]:
    def corloc(choice: str) -> list[float | None]:
        same = {choice, "default" if choice == "validation" else choice}  # the default, where no boxes chose one
        fitting = [
            [s.result.macro for s in found.scores if s.method == method and s.protocol.threshold_choice in same]
            for found in evaluations
        ]
        return [next(iter(values), None) for values in fitting]

    def figure(name: str) -> list[float | None]:
        return [
            next((metric.value for metric in found.metrics if (metric.method, metric.name) == (method, name)), None)
            for found in evaluations
        ]

    return [spread(corloc(choice)), spread(corloc("oracle")), *(spread(figure(name)) for name in FIGURES)]


if __name__ == "__main__":
    main()
