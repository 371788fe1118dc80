"""Run a fixed small job through the command line and store digests of everything it computes.

    .venv/bin/python tools/bench/golden.py -o before.json
    .venv/bin/python tools/bench/golden.py -o after.json --compare before.json

The job is the demo (seed 0), a TCAM and a CoLo-CAM training on ten real clips, and predict, stream, evaluate, compare
and export with the TCAM run. ``--code CHECKOUT`` runs the code of another checkout, so that two commits can be compared
on one machine; only the command line is used. Digests of other machines or library versions may differ, so they are
not committed. ``--compare`` prints one line for each difference and exits with 1 if there is one.

Content is compared, not bytes: columns of tables, numbers of JSON files, tensors of checkpoints and ONNX files, CAMs,
decoded frames of videos. Some files are left out because they hold times, paths, versions or hashes of settings:
``env.json``, ``started.json``, ``stage.json``, ``resume.pt``, TensorBoard files, the frame cache, HTML and Markdown
pages, and the keys in ``LEFT_OUT``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
CLASSES = ("aeroplane", "bird")
CLIPS = {"train": 3, "val": 1, "test": 1}
"""Real clips of each class, the first ones by name."""

PARTS = ("clips", "demo")
SETTINGS = (
    "precision=fp32",
    "data.workers=0",
    "model.backbone=mobilenetv2_100",
    "model.backbone_options={pad_type: same}",
    "model.output_stride=16",
    "model.decoder_channels=[32,16,16,8,8]",
    "input.resize=128",
    "input.crop=112",
    "classifier.epochs=3",
    "classifier.batch=4",
    "classifier.frames_per_shot=4",
    "classifier.freeze_backbone=true",
    "classifier.late_lr_ratio=1.0",
    "classifier.lr=0.05",
    "classifier.weight_decay=0.01",
    "localizer.epochs=3",
    "localizer.batch=4",
    "localizer.frames_per_shot=4",
    "localizer.lr=0.05",
    "localizer.seeds.foreground=50",
    "localizer.seeds.background=50",
    "localizer.seeds.foreground_fraction=0.3",
    "localizer.seeds.background_fraction=0.5",
    "evaluation.threshold_step=0.02",
)
COLOCAM = ("localizer.frames_per_shot=1", "localizer.sequence.frames=4", "localizer.joint.weight=0.3")
WEIGHTS = "data/weights/mobilenetv2_100_tf_same_fp16.safetensors"
LEFT_OUT = frozenset({"lag_ms", "versions", "tcam", "weights_hash", "cache_path", "environment", "config"})
"""Keys of JSON that depend on time, paths or versions, or repeat what is compared anyway."""
LONGEST_LIST = 12
"""Of numbers, that is told number by number; a longer list is one digest."""

VOLATILE = ("env.json", "started.json", "stage.json")
NOT_READ = ("home", "demo/cache", "clips")
"""Folders whose files are inputs or copies of inputs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file for the digests")
    parser.add_argument("--compare", type=Path, help="digests of an earlier run")
    parser.add_argument("--code", type=Path, default=REPO, help="checkout whose code runs; default: this one")
    parser.add_argument("--shared", type=Path, default=REPO.parent / "shared", help="folder that holds data/webclips")
    parser.add_argument("--part", choices=PARTS, action="append", help="a part of the job; default: all")
    parser.add_argument("--work", type=Path, help="new folder that keeps what the job writes; default: a temporary one")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists: name a new file")
    if options.work is not None and options.work.exists():
        parser.error(f"{options.work} exists: name a new folder")
    with tempfile.TemporaryDirectory(prefix="tcam-golden-") as temporary:
        work = options.work or Path(temporary) / "work"
        work.mkdir(parents=True)
        run_job(work.resolve(), options.code.resolve(), options.shared.resolve(), options.part or PARTS)
        made = {"torch": version("torch"), "timm": version("timm"), "numpy": version("numpy"), "python": sys.version}
        found = {"made_with": made, "digests": dict(sorted(digest_folder(work.resolve()).items()))}
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"golden: {len(found['digests'])} digests: {options.output}", file=sys.stderr)
    if options.compare is not None:
        differences = list(compare(json.loads(options.compare.read_text(encoding="utf-8")), found))
        print(*(differences or ["no difference"]), sep="\n")
        sys.exit(bool(differences))


def run_job(work: Path, code: Path, shared: Path, parts: Sequence[str]) -> None:
    """Run every command in the folder ``work``, with one thread and without an accelerator."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TCAM_HOME": str(work / "home"),
    }

    def tcam(*arguments: object, stdout: str | None = None) -> str:
        began = time.monotonic()
        command = [sys.executable, "-m", "tcam", *map(str, arguments), "--quiet"]
        done = subprocess.run(command, cwd=work, env=environment, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            sys.exit(f"golden: exit code {done.returncode}: {' '.join(command)}")
        if stdout is not None:
            (work / stdout).write_bytes(done.stdout)
        print(f"golden: {time.monotonic() - began:5.0f} s  tcam {arguments[0]}", file=sys.stderr)
        return done.stdout.decode("utf-8", "replace")

    if "clips" in parts:
        copy_clips(shared / "data" / "webclips", work / "clips")
        train_on_clips(tcam, shared / WEIGHTS)
        use_run(tcam, min((work / "clips" / CLASSES[0]).glob("*.mp4")).relative_to(work))
    if "demo" in parts:
        tcam("demo", "-o", "demo", "--seed", 0, "--device", "cpu")


def train_on_clips(tcam: Callable[..., str], weights: Path) -> None:
    """Train both methods, evaluate and compare them."""
    for method in ("tcam", "colocam"):
        settings = flags((*SETTINGS, *COLOCAM) if method == "colocam" else SETTINGS)
        where = ("--videos", "clips", "--runs", "runs", "--name", method, "--weights", weights)
        tcam("train", "--method", method, *where, "--seed", 0, "--device", "cpu", *settings)
        options = ("--split", "val", "-o", f"val-{method}", "--json")
        tcam("evaluate", f"runs/{method}-001", *options, stdout=f"{method}.json")
    baseline = "--baseline" if "--baseline" in tcam("evaluate", "--help") else "--floor"  # its name until issue 22
    benchmark = ("--protocol", "benchmark", baseline, "ddt")
    tcam("evaluate", "runs/tcam-001", "--split", "all", *benchmark, "-o", "all-tcam", "--json", stdout="all.json")
    tcam("compare", "runs/tcam-001", "runs/colocam-001", "-o", "compared", "--json", stdout="compare.json")


def use_run(tcam: Callable[..., str], clip: Path) -> None:
    """Predict, stream and export with the TCAM run."""
    run, folder = "runs/tcam-001", clip.parent
    for ending in ("csv", "jsonl", "parquet"):
        tcam("predict", run, "--source", folder, "-o", f"boxes.{ending}", "--track")
    tcam("predict", run, "--source", clip, "--class", CLASSES[1], "-o", "-", stdout="stdout.jsonl")
    tcam("predict", run, "--source", folder, "-o", "tables/", "--save-video", "overlay", "--threshold", 0.6)
    tcam("stream", run, "--source", clip, "-o", "stream.jsonl", "--save-video", "seen.mp4")
    tcam("stream", run, "--source", clip, "-o", "steady.jsonl", "--smooth", 1, "--min-score", "auto")
    tcam("export", run, "--format", "onnx", "-o", "tcam.onnx")
    tcam("predict", "tcam.onnx", "--source", folder, "-o", "onnx.csv")


def flags(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def copy_clips(source: Path, target: Path) -> None:
    """Copy a few real clips with their rows of clips.csv and boxes.csv."""
    if not (source / "clips.csv").is_file():
        sys.exit(f"golden: {source}/clips.csv not found: name the folder that holds data/webclips with --shared")
    with (source / "clips.csv").open(encoding="utf-8", newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["video"])
    kept = []
    for name in CLASSES:
        for split, count in CLIPS.items():
            kept += [row for row in rows if (row["class"], row["split"]) == (name, split)][:count]
    for row in kept:
        (target / row["class"]).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / row["video"], target / row["video"])
    wanted = {row["video"] for row in kept}
    write_rows(target / "clips.csv", ({key: row[key] for key in ("video", "class", "split")} for row in kept))
    with (source / "boxes.csv").open(encoding="utf-8", newline="") as stream:
        write_rows(target / "boxes.csv", (row for row in csv.DictReader(stream) if row["video"] in wanted))


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    listed = list(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, listed[0].keys())
        writer.writeheader()
        writer.writerows(listed)


def digest_folder(work: Path) -> dict[str, str]:
    """Return one entry for each column, number, checkpoint, video and set of maps below a folder."""
    found: dict[str, str] = {}
    maps: dict[str, Any] = defaultdict(hashlib.sha256)
    for path in sorted(item for item in work.rglob("*") if item.is_file()):
        name = path.relative_to(work).as_posix()
        if name.startswith(tuple(f"{folder}/" for folder in NOT_READ)) or path.name in VOLATILE:
            continue
        if path.suffix == ".npy":
            maps[path.parent.relative_to(work).as_posix()].update(path.name.encode() + path.read_bytes())
        elif path.suffix in READERS:
            entries = READERS[path.suffix](path)
            found.update({f"{name}: {key}": value.replace(str(work), "WORK") for key, value in entries})
    return found | {f"{folder}/*.npy": total.hexdigest() for folder, total in maps.items()}


def digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every number and string of nested JSON with its place, as JSON; keys in ``LEFT_OUT`` are passed over."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in LEFT_OUT:
                yield from leaves(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and len(value) > LONGEST_LIST and not isinstance(value[0], dict):
        yield name, digest(value)
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from leaves(part, f"{name}[{label(part, number)}]")
    else:
        yield name, json.dumps(value)


def label(part: object, number: int) -> str:
    """Name an item of a list, so that an item more does not shift all that follow."""
    keys = ("video_id", "method", "name", "metric", "threshold_choice")
    known = [str(part[key]) for key in keys if key in part] if isinstance(part, dict) else []
    return ", ".join(known) or str(number)


def read_json(path: Path) -> Iterator[tuple[str, str]]:
    yield from leaves(json.loads(path.read_text(encoding="utf-8")))


def read_yaml(path: Path) -> Iterator[tuple[str, str]]:
    import yaml

    yield from leaves(yaml.safe_load(path.read_text(encoding="utf-8")))


def columns(rows: Sequence[Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """Yield the digest of each column; a cell that a row lacks counts as null."""
    names = dict.fromkeys(key for row in rows for key in row)
    yield "rows", str(len(rows))
    for name in names:
        yield name, digest([row.get(name) for row in rows])


def read_csv(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from columns(list(csv.DictReader(stream)))


def read_jsonl(path: Path) -> Iterator[tuple[str, str]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    yield from columns([dict(leaves(line)) for line in lines])


def read_parquet(path: Path) -> Iterator[tuple[str, str]]:
    import pandas as pd

    rows = json.loads(pd.read_parquet(path).to_json(orient="records", double_precision=15))
    yield from columns([dict(leaves(row)) for row in rows])


def read_weights(path: Path) -> Iterator[tuple[str, str]]:
    from safetensors import safe_open

    total = hashlib.sha256()
    with safe_open(path, "numpy") as stream:
        for name in sorted(stream.keys()):
            tensor = stream.get_tensor(name)
            total.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
        metadata = stream.metadata() or {}
    yield "tensors", total.hexdigest()
    for name, text in sorted(metadata.items()):
        yield from leaves(json.loads(text), name)


def read_onnx(path: Path) -> Iterator[tuple[str, str]]:
    import onnx

    model = onnx.load(path)
    yield "operators", digest([node.op_type for node in model.graph.node])
    yield "tensors", digest(sorted(digest([str(item.dims), item.raw_data.hex()]) for item in model.graph.initializer))
    for item in model.metadata_props:
        yield from leaves(json.loads(item.value), item.key)


def read_video(path: Path) -> Iterator[tuple[str, str]]:
    import av

    total, count = hashlib.sha256(), 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            total.update(frame.to_ndarray(format="rgb24").tobytes())
            count += 1
    yield "frames", str(count)
    yield "pixels", total.hexdigest()


READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    ".json": read_json,
    ".yaml": read_yaml,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".safetensors": read_weights,
    ".onnx": read_onnx,
    ".mp4": read_video,
}
"""How the content of a file is read, by its ending; other files are left out."""


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each entry that changed, went or came; a new one may say which old one had the same content."""
    for name in sorted(old["made_with"].keys() | new["made_with"].keys()):
        was, now = old["made_with"].get(name), new["made_with"].get(name)
        if was != now:
            yield f"made with another {name}: {was} -> {now}"
    before, after = old["digests"], new["digests"]
    gone = {value: name for name, value in before.items() if name not in after}
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"gone: {name} = {shorten(before[name])}"
        elif name not in before:
            same = gone.get(after[name], "") if len(after[name]) == len(digest(None)) else ""
            yield f"new: {name} = {shorten(after[name])}" + (f" (the content of {same})" if same else "")
        elif before[name] != after[name]:
            yield f"changed: {name}: {shorten(before[name])} -> {shorten(after[name])}"


def shorten(value: str) -> str:
    """Return the beginning of a digest, or of a long value."""
    return value if len(value) <= 40 else f"{value[:12]}..."


if __name__ == "__main__":
    main()
