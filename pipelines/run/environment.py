"""Describe the environment of a run: versions, machine, threads."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path


def processor_name() -> str:
    """Return the name of this machine's processor, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    versions = {}
    for package in ("tcam", "torch", "torchvision", "timm", "numpy", "av", "decord", "onnxruntime", "openvino"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_environment() -> dict[str, object]:
    """Return the environment of a run: versions, machine, threads."""
    import torch

    return {
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }
