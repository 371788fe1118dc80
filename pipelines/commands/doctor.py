"""What ``tcam doctor`` does: find out in a few seconds what this machine has, and how to fix what is missing.

PyTorch and the video reader are tried in separate processes, in parallel: this saves time, and a library that crashes
its process is reported too. This process loads nothing heavy.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, cast

from pipelines.run.environment import processor_name
from pipelines.run.places import cache_folder, data_folder
from tcam.errors import MissingPartError

Status = Literal["ok", "missing", "FAILED"]

WIDTH: Final = 80
PROBE_TIMEOUT_S: Final = 120.0
HUB_TIMEOUT_S: Final = 2.0
_HUB_FILE: Final = "timm/resnet50.a1_in1k/resolve/main/config.json"
_PRECISIONS: Final = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
_SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: ``detail`` is what was found, ``remedy`` how to fix it if it is not ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def lines(self) -> str:
        """Return the line, wrapped at 80 columns."""
        text = f"{self.detail}: {self.remedy}" if self.remedy else self.detail
        head = f"{self.status:<8}{self.name:<11}"
        return textwrap.fill(
            text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
        )


def check_machine(*, as_json: bool) -> None:
    """Print every check on stdout.

    Raises:
        MissingPartError: something that every command needs does not work.
    """
    checks = []
    for check in run_checks():
        checks.append(check)
        if not as_json:
            sys.stdout.write(check.lines() + "\n")
            sys.stdout.flush()
    failed = [check.name for check in checks if check.status == "FAILED"]
    if as_json:
        sys.stdout.write(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2) + "\n")
    if failed:
        raise MissingPartError(f"tcam cannot work here: {', '.join(failed)} failed; the lines above say how to mend it")


def run_checks() -> Iterator[Check]:
    """Yield the checks in the order of their lines; the slow ones start before the first one is yielded."""
    torch, video = _start("report_torch"), _start("report_video")
    hub = _HubAnswer()
    yield Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield from _torch_checks(_Report.of(torch))
    yield check_packages("networks", ["timm", "torchvision"], "install it", required=True)
    yield from _video_checks(_Report.of(video))
    yield check_packages("numba", ["numba"], "boxes need it", required=True)
    yield check_packages("Ray", ["ray"], "only for --ray and --num-workers", extra="ray")
    yield check_packages("export", ["onnx", "onnxscript", "nncf"], "only for tcam export", extra="export")
    yield check_packages("engines", ["onnxruntime", "openvino"], "only for exported files", extra="export")
    yield check_packages("CRF", ["pydensecrf2"], "only for --refine crf", extra="crf")
    yield check_folder("cache", cache_folder(), "TCAM_HOME", required=True)
    yield check_folder("data sets", data_folder(), "TCAM_DATA", required=False)
    yield hub.check()


def check_packages(
    name: str, packages: Sequence[str], purpose: str, *, extra: str | None = None, required: bool = False
) -> Check:
    """Look up the versions of packages without importing them."""
    versions: dict[str, str | None] = {package: _version(package) for package in packages}
    absent = [package for package, version in versions.items() if version is None]
    if not absent:
        return Check(name, "ok", ", ".join(f"{package} {version}" for package, version in versions.items()))
    wanted = " ".join(absent) if extra is None else f"'tcam[{extra}]'"
    status: Status = "FAILED" if required else "missing"
    return Check(name, status, f"no {', '.join(absent)} ({purpose})", f"pip install {wanted}")


def check_folder(name: str, folder: Path, variable: str, *, required: bool) -> Check:
    """Check that a folder, or its nearest parent that exists, is writable."""
    place = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"tcam")
        free = shutil.disk_usage(place).free / 1e9
    except OSError as error:
        status: Status = "FAILED" if required else "missing"
        found = f"{_short(folder)} cannot be written ({error.strerror})"
        return Check(name, status, found, f"set {variable} to another folder")
    return Check(name, "ok", f"{_short(folder)}, {free:.0f} GB free")


class _HubAnswer:
    """Whether the hub of pretrained weights answers; asked in a thread, as looking up its name has no time-out."""

    def __init__(self) -> None:
        self._failure = f"no answer within {HUB_TIMEOUT_S:.0f} s"
        self._endpoint = ""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            from huggingface_hub import constants
        except ImportError as error:
            self._failure = str(error)
            return
        self._endpoint = constants.ENDPOINT
        if constants.HF_HUB_OFFLINE:
            self._failure = "HF_HUB_OFFLINE forbids downloads"
            return
        try:
            # The address comes from the library that downloads; the answer is not read.
            with urllib.request.urlopen(f"{self._endpoint}/{_HUB_FILE}", timeout=HUB_TIMEOUT_S):  # noqa: S310
                self._failure = ""
        except urllib.error.HTTPError as error:
            self._failure = f"answers {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            self._failure = " ".join(str(getattr(error, "reason", error)).split())

    def check(self) -> Check:
        self._thread.join(HUB_TIMEOUT_S)
        host = self._endpoint.partition("://")[2] or "download"
        if not self._failure:
            return Check("weights", "ok", f"{host} answers")
        return Check("weights", "missing", f"{host}: {self._failure}", "use --weights FILE (model.weights) or random")


@dataclass(frozen=True, slots=True)
class _Report:
    """What a child process found; ``failure`` says why it found nothing."""

    found: Mapping[str, str]
    failure: str = ""

    @classmethod
    def of(cls, process: subprocess.Popen[str]) -> _Report:
        try:
            out, err = process.communicate(timeout=PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return cls({}, f"no answer within {PROBE_TIMEOUT_S:.0f} s")
        if process.returncode < 0:
            return cls({}, f"its process was ended by {signal.Signals(-process.returncode).name}")
        if process.returncode:
            return cls({}, (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
        return cls(cast("Mapping[str, str]", json.loads(out.splitlines()[-1])))


def _start(function: str) -> subprocess.Popen[str]:
    # Disabling garbage collection saves 0.4 s when PyTorch is imported.
    code = f"import gc; gc.disable(); from pipelines.commands import doctor; doctor.{function}()"
    # -P: a file called torch.py in the user's folder must not be imported.
    return subprocess.Popen(  # noqa: S603 (our own interpreter and code)
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _torch_checks(report: _Report) -> Iterator[Check]:
    found = report.found
    if report.failure:
        yield Check("PyTorch", "FAILED", report.failure, "pip install --force-reinstall torch torchvision")
        return
    yield Check("PyTorch", "ok", found["torch"])
    if found["gpu unused"]:
        remedy = "install a PyTorch built for its driver, or a newer driver"
        yield Check("device", "missing", f"{found['device']}; this PyTorch cannot use the NVIDIA GPU", remedy)
    else:
        yield Check("device", "ok", found["device"])
    yield Check("precision", "ok", f"{found['precision']}, which precision=auto takes here")


def _video_checks(report: _Report) -> Iterator[Check]:
    if report.failure:
        yield Check("PyAV", "FAILED", report.failure, "pip install --upgrade --force-reinstall av")
        return
    yield Check("PyAV", "ok", f"{report.found['PyAV']}, wrote and read a video")
    if report.found["decord"]:
        yield Check("decord", "ok", f"{report.found['decord']}, read it too")
    else:
        yield Check("decord", "missing", "PyAV reads training clips in its place, slower", "pip install decord")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


def report_torch() -> None:
    """Print as JSON what PyTorch computes on (runs in its own process)."""
    import torch

    from pipelines.models.device import choose_compute

    compute = choose_compute("auto", "auto")
    kind, threads = compute.device.type, torch.get_num_threads()
    name = torch.cuda.get_device_name(compute.device) if kind == "cuda" else processor_name()
    found = {
        "torch": f"{torch.__version__}, {threads} thread{'s' * (threads != 1)}",
        "device": f"{kind} ({name})",
        "precision": _PRECISIONS[str(compute.dtype)],
        "gpu unused": "yes" if kind == "cpu" and any(Path("/proc/driver/nvidia/gpus").glob("*")) else "",
    }
    sys.stdout.write(json.dumps(found) + "\n")


def report_video() -> None:
    """Write a short video, read it back and print the readers' versions as JSON (runs in its own process)."""
    import numpy as np

    from tcam.video.reader import ClipReader, DecordReader, has_decord
    from tcam.video.writer import VideoWriter

    frames = np.arange(4 * 3 * _SIDE * _SIDE, dtype=np.uint8).reshape(4, 3, _SIDE, _SIDE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mp4"
        with VideoWriter(path, size=(_SIDE, _SIDE), fps=25, intra=True) as writer:
            for frame in frames:
                writer.write(frame)
        with ClipReader(path, decoder="pyav", num_frames=4, size=(_SIDE, _SIDE)) as reader:
            reader.read([3, 0])
        decord = has_decord()
        if decord:
            DecordReader(path, num_frames=4, size=(_SIDE, _SIDE)).read([0, 3])
    found = {"PyAV": _version("av") or "", "decord": (_version("decord") or "") if decord else ""}
    sys.stdout.write(json.dumps(found) + "\n")
