"""What users of ``import tcam`` rely on: its names and signatures, and their types in the built wheel.

``python -m tests.test_public_api`` prints the names and signatures as they are now.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import tcam
import tcam.errors
import tcam.types

REPO = Path(__file__).parents[1]
GOLDEN = REPO / "tests" / "data" / "public_api.txt"
RENEW = f"python -m tests.test_public_api > {GOLDEN.relative_to(REPO)}"
VALUES = ("Box", "FrameBox")
"""Classes of ``tcam.types`` that the names for users return."""


def describe_api() -> Iterator[str]:
    """Return a line for every public name: its signature, or its value's type."""
    for name in tcam.__all__:
        yield from describe(f"tcam.{name}", getattr(tcam, name))
    for name in VALUES:
        yield from describe(f"tcam.types.{name}", getattr(tcam.types, name))
    for name, error in inspect.getmembers(tcam.errors, inspect.isclass):
        yield f"tcam.errors.{name}({error.__base__.__name__}): exit code {error.exit_code}"


def describe(name: str, value: object) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"{name}{signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"
        return
    yield f"{name}{signature(value)}"
    own = {key: item for key, item in vars(value).items() if not key.startswith("_") or key == "__call__"}
    fields = {item.name for item in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    for key, item in own.items():
        if isinstance(item, property):
            yield f"{name}.{key}: {inspect.signature(item.fget).return_annotation}"
        elif key not in fields:
            yield f"{name}.{key}{signature(getattr(value, key))}"


class Annotation(str):
    """An annotation that is written without quotes."""

    def __repr__(self) -> str:
        return str(self)


def signature(function: Callable[..., object]) -> inspect.Signature:
    found = inspect.signature(function)
    parameters = [item.replace(annotation=plain(item.annotation)) for item in found.parameters.values()]
    return found.replace(parameters=parameters, return_annotation=plain(found.return_annotation))


def plain(annotation: object) -> object:
    return Annotation(annotation) if isinstance(annotation, str) else annotation


def test_names_and_signatures_are_the_recorded_ones():
    recorded, found = GOLDEN.read_text().splitlines(), list(describe_api())
    difference = "\n".join(difflib.unified_diff(recorded, found, GOLDEN.name, "now", lineterm="", n=0))
    assert not difference, (
        f"the public API has changed:\n{difference}\n"
        f"If that is meant, write it into CHANGELOG.md and docs/python.md, and record it: {RENEW}"
    )


@pytest.fixture(scope="module")
def user_python(tmp_path_factory) -> Path:
    """Give the interpreter of an environment where the wheel is installed, beside what is installed here.

    The wheel is built of a copy, as a build leaves files in its folder.
    """
    folder = tmp_path_factory.mktemp("user")
    copy = folder / "source"
    for package in ("tcam", "colocam", "pipelines", "configs"):
        shutil.copytree(REPO / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / file, copy)
    pip, quiet = [sys.executable, "-m", "pip"], ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    call(*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", folder, copy, cwd=folder)
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": environment, "platbase": environment}))
    call(*pip, "install", *quiet, "--target", packages, next(folder.glob("tcam-*.whl")), cwd=folder)
    (packages / "here.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # a path: .pth files there are not read
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


def run_outside(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that does not see this checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = run_outside(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_types(scripts: Mapping[str, str], python: Path, folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Return the errors (line, code) that mypy, as strict as it can be, finds in each script of a user."""
    for name, script in scripts.items():
        (folder / name).write_text(textwrap.dedent(script).lstrip())
    (folder / "mypy.ini").write_text(MYPY_INI)
    command = [sys.executable, "-m", "mypy", "--python-executable", python, "--no-error-summary", *scripts]
    done = run_outside(*command, cwd=folder)
    assert not done.stderr, done.stderr
    found: dict[str, list[tuple[int, str]]] = {name: [] for name in scripts}
    for line in done.stdout.splitlines():
        error = re.fullmatch(r"([^:]+):(\d+): error: .*\[([\w-]+)\]", line)
        if error is not None:
            found[error[1]].append((int(error[2]), error[3]))
    return found


MYPY_INI = """
[mypy]
strict = true
[mypy-torch.*,ray.*,scipy.*,timm.*,numba.*,huggingface_hub.*,supervision.*,rich.*,matplotlib.*,aiohttp.*]
follow_imports = skip
follow_imports_for_stubs = true
[mypy-torch,torch._tensor,torch._C]
follow_imports = normal
"""
"""Of what a user does not touch, only the tensors of PyTorch, as all of it takes most of the time."""

RIGHT = """
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import pandas as pd

    import tcam
    from tcam.types import Box, FrameBox

    run: Path = tcam.train("videos", name="pets", settings={"method": "tcam", "classifier.epochs": 2})
    table: pd.DataFrame = tcam.evaluate(run, split="val", protocol="benchmark", quiet=True)
    localizer = tcam.Localizer(run, device="cpu", threshold=0.4, class_name="dog")
    frames = np.zeros((2, 48, 64, 3), np.uint8)
    found: list[FrameBox] = localizer(frames)
    box: Box | None = found[0].box
    height: int = localizer.size[0]
    whole: list[FrameBox] = tcam.predict("a.mp4", run=localizer)
    lazy: Iterator[FrameBox] = tcam.predict("a.mp4", run=tcam.StreamLocalizer.of_run(run), stream=True)
    version: str = tcam.__version__
"""

WRONG = {
    'tcam.Localizer("run", devise="cpu")': "call-arg",
    "tcam.Localizer(3)": "arg-type",
    'tcam.Localizer("run")("frames")': "arg-type",
    'x: int = tcam.Localizer("run").class_names': "assignment",
    'tcam.predict("a.mp4", run="run").box': "attr-defined",
    'tcam.predict("a.mp4", run="run")[0].box.x0': "union-attr",
    'tcam.evaluate("run", split="tset")': "arg-type",
    'y: str = tcam.train("videos")': "assignment",
    "tcam.predcit": "attr-defined",
}
"""Mistakes of a user, one a line, and the code of mypy's error."""


@pytest.mark.slow
def test_a_script_of_a_user_has_the_types_of_the_installed_wheel(user_python, tmp_path):
    where = call(user_python, "-c", "import tcam, pipelines; print(tcam.__file__, pipelines.__file__)", cwd=tmp_path)
    assert all(Path(path).is_relative_to(user_python.parents[1]) for path in where.split()), where
    scripts = {"right.py": RIGHT, "wrong.py": "\n".join(["import tcam", *WRONG])}
    found = check_types(scripts, user_python, tmp_path)
    assert found == {"right.py": [], "wrong.py": list(enumerate(WRONG.values(), start=2))}


if __name__ == "__main__":
    sys.stdout.write("\n".join(describe_api()) + "\n")
