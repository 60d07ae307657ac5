"""What is released is said in one way: versions, Pythons and extras agree wherever they stand."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import radimagenet_jax

PROJECT = Path(__file__).resolve().parents[1]
GITHUB = PROJECT / ".github"
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
YAML = sorted(
    path
    for path in (
        *GITHUB.rglob("*.yml"),
        PROJECT / "CITATION.cff",
        PROJECT / ".pre-commit-config.yaml",
    )
)


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_settings_for_other_programs_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_citation_and_the_changelog_have_the_version_and_its_date():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    assert citation["version"] == radimagenet_jax.__version__
    heading = f"## [{citation['version']}] - {citation['date-released']}"
    assert heading in changelog.splitlines()
    assert changelog.index("## [Unreleased]") < changelog.index(heading)


def test_ci_runs_every_python_that_the_package_names_and_the_lowest_dependencies():
    jobs = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]
    named = [text.rpartition(" ")[2] for text in SETTINGS["classifiers"] if ":: 3." in text]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == named
    assert SETTINGS["requires-python"] == f">={named[0]}"
    commands = [step.get("run", "") for step in jobs["lowest"]["steps"]]
    assert any("--resolution lowest-direct" in command for command in commands)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_name_extras_and_scripts_that_are_there(name):
    text = (GITHUB / f"workflows/{name}.yml").read_text()
    for extras in re.findall(r"'\.\[([\w,]+)\]'", text):
        assert set(extras.split(",")) <= set(SETTINGS["optional-dependencies"])
    for script in re.findall(r"\.ci/\w+", text):
        assert (PROJECT / script).stat().st_mode & 0o100, script


def test_no_extra_of_the_default_brings_another_framework_or_cuda():
    default = " ".join(SETTINGS["dependencies"]).lower()
    for name in ("scikit-learn", "torch", "cuda", "keras", "tensorflow-cpu", "tensorflow>"):
        assert name not in default


def test_the_pages_of_the_code_host_lead_somewhere():
    for page in GITHUB.glob("*.md"):
        for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
