"""What a hosting platform and a citation manager read: workflows, templates, CITATION.cff."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
JOBS = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())["jobs"]


def test_every_job_runs_one_script_of_this_repository():
    scripts = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in JOBS.items()}
    assert scripts == {"all": [".ci/run"], "lowest": ["tools/lowest"], "bare": ["tools/bare"], "wheel": ["tools/wheel"]}
    for (script,) in scripts.values():
        assert os.access(REPO / script, os.X_OK), f"{script} is not executable"


def test_the_workflow_runs_every_python_that_the_package_names():
    named = [found[1] for line in PROJECT["classifiers"] if (found := re.search(r"Python :: (3\.\d+)", line))]
    assert JOBS["all"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("extra", [None, *sorted(PROJECT["optional-dependencies"])])
def test_every_dependency_has_a_lower_bound(extra):
    wanted = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    assert [item for item in wanted if ">=" not in item and not item.startswith("tcam[")] == []


def test_the_citation_is_of_this_version_and_of_both_papers():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    urls = [reference["url"] for reference in citation["references"]]
    assert urls == list(PROJECT["urls"].values())


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_issue_forms_are_forms(form):
    content = yaml.safe_load((REPO / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
    assert content["name"]
    assert content["description"]
    for element in content["body"]:
        assert element["type"] in {"textarea", "input"}
        assert element["attributes"]["label"]
