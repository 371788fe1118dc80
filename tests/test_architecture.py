"""The rules of the house that a machine can see: who imports whom, how large a file may grow, what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

REPO = Path(__file__).parents[1]
PACKAGES = ("tcam", "colocam", "pipelines")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_DECISION_LINES = 20
MAX_FILE_BYTES = 400_000
"""Of whatever git keeps: a clone carries every version of a picture for ever."""


def package_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((REPO / package).rglob("*.py"))


def imported_after(statement: str) -> set[str]:
    """Give the modules that a fresh interpreter holds after one statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_imports_keep_the_contracts_of_pyproject():
    # In a process of its own: after an export to ONNX in this one, the linter closes what pytest captures with.
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_module_is_part_of_an_import_circle():
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    left = {module: graph.find_modules_directly_imported_by(module) & graph.modules for module in graph.modules}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}, "these modules import each other, or something in such a circle"


def test_no_package_file_is_longer_than_the_budget():
    lengths = {path.relative_to(REPO).as_posix(): len(path.read_text().splitlines()) for path in package_files()}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_the_budget():
    too_long = {
        f"{path.relative_to(REPO)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in package_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert too_long == {}


def test_importing_tcam_is_cheap():
    heavy = {"torch", "numpy", "pandas", "timm", "torchvision", "decord", "av", "ray", "scipy"}
    assert imported_after("import tcam") & heavy == set()


def test_the_command_line_shows_its_help_without_loading_torch():
    assert imported_after("import pipelines.cli.app") & {"torch", "torchvision", "timm", "decord", "ray"} == set()


def test_boxes_are_made_without_loading_torch():
    modules = "pipelines.commands.predict, pipelines.streaming.run, pipelines.bench.engines, pipelines.api"
    loaded = imported_after(f"import {modules}")
    assert loaded & {"torch", "torchvision", "timm", "onnxruntime", "openvino"} == set()


def test_the_domain_loads_without_the_fragile_packages():
    loaded = imported_after("import tcam.types, tcam.video.dataset, tcam.boxes.extract")
    assert loaded & {"decord", "ray", "pydensecrf", "pandas"} == set()


def test_tests_mirror_the_packages():
    rooms = {path.parent.relative_to(REPO / "tests") for path in (REPO / "tests").rglob("test_*.py")}
    known = {Path()} | {path.parent.relative_to(REPO) for path in package_files()}
    tools = {path.parent.relative_to(REPO) for path in (REPO / "tools").rglob("*.py")}
    assert rooms - known - tools == set()


def test_ray_is_imported_in_three_files():
    importers = {
        path.stem
        for path in package_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "ray" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ray")
    }
    assert importers == {"ray", "cluster"}


def test_no_file_in_git_is_large():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, timeout=60)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {name: (REPO / name).stat().st_size for name in listed.stdout.split("\0") if (REPO / name).is_file()}
    assert "README.md" in sizes
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}


def test_the_readme_stays_short():
    assert len((REPO / "README.md").read_text().splitlines()) <= 120


def test_decisions_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in REPO.glob(".github/decisions/*.md")}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MAX_DECISION_LINES} == {}
