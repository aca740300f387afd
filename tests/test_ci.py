"""The recipes: workflows that a linter accepts, commands that exist, hooks and the action run as they stand in the documents."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from equivcheck.cli import config
from equivcheck.cli.main import cli

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DOCUMENT = "\n".join((ROOT / "docs" / name).read_text() for name in ("ci.md", "scale.md"))
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
RULES = YamlLintConfig((ROOT / ".yamllint").read_text())
RECIPES = {path.name: path.read_text() for path in WORKFLOWS} | {
    f"docs, workflow {number}": text for number, (kind, text) in enumerate(BLOCKS) if kind == "yaml"
}
ACTION = (ROOT / "action.yml").read_text()
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts() -> list[str]:
    """Every piece of shell in the recipes."""
    found = [text for kind, text in BLOCKS if kind == "sh"]
    for text in RECIPES.values():
        found += [step["run"] for step in steps(yaml.safe_load(text)) if "run" in step]
    return found


def commands() -> list[str]:
    lines = [line.strip() for script in scripts() for line in script.replace("\\\n", " ").splitlines()]
    found = [re.split(r"\bequivcheck (?=verify|merge|gate|report|replay|bench)", line, maxsplit=1) for line in lines]
    return [parts[1] for parts in found if len(parts) == 2]


@pytest.mark.parametrize("name", [*RECIPES, "action.yml"])
def test_a_linter_accepts_every_workflow(name: str) -> None:
    text = ACTION if name == "action.yml" else RECIPES[name]
    assert [str(problem) for problem in linter.run(text, RULES)] == []


@pytest.mark.parametrize("name", RECIPES)
def test_every_workflow_is_one_that_github_runs(name: str) -> None:
    workflow = yaml.safe_load(RECIPES[name])
    assert {"name", "on", "jobs"} <= set(workflow) <= {"name", "on", "jobs", "permissions", "concurrency"}
    for job in workflow["jobs"].values():
        assert {"runs-on", "steps"} <= set(job)
        assert set(job) <= {"runs-on", "steps", "timeout-minutes", "strategy", "if", "needs"}
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        assert set(step) <= {"name", "run", "uses", "with", "if", "env"}
        assert "uses" not in step or re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+", step["uses"])
        # an expression inside of a script is a command for whoever chooses a branch's name
        assert not EXPRESSION.search(step.get("run", ""))
    assert RECIPES[name].count("${{") == len(EXPRESSION.findall(RECIPES[name]))
    if name.endswith(".yml"):
        assert workflow["permissions"] == {"contents": "read"}


def test_every_command_of_the_recipes_is_one_that_exists() -> None:
    found = commands()
    assert len(found) >= 8
    for line in found:
        name, *arguments = shlex.split(line)
        command = cli.commands[name]
        with command.make_context(name, arguments, resilient_parsing=False) as context:
            assert isinstance(context, click.Context)


def test_what_the_workflows_run_is_there() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    targets = re.findall(r"make ((?:\w+ ?)+?)(?:\w+=|$)", "\n".join(scripts()), re.MULTILINE)
    assert {"install", "verify", "test"} <= set(" ".join(targets).split())
    for target in targets:
        for name in target.split():
            assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", scripts())
def test_every_script_is_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_declarations_of_the_document_are_understood(tmp_path: Path) -> None:
    (text,) = (text for kind, text in BLOCKS if kind == "toml")
    (tmp_path / "pyproject.toml").write_text(text)
    assert set(config.load(tmp_path / "pyproject.toml").deviations) == set(
        tomllib.loads(text)["tool"]["equivcheck"]["deviations"]
    )


@pytest.fixture
def path_with_equivcheck(tmp_path: Path) -> dict[str, str]:
    """An environment in which `equivcheck` is this source, installed or not."""
    tool = tmp_path / "bin" / "equivcheck"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m equivcheck "$@"\n')
    tool.chmod(0o755)
    hidden = {"GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden and not key.startswith("GIT_")}
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@a",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@a",
    }
    return {**kept, **identity, "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_hook_lets_a_push_through_only_with_evidence(tmp_path: Path, path_with_equivcheck: dict[str, str]) -> None:
    hooks = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("#!")]
    repository, remote = tmp_path / "repository", tmp_path / "remote.git"

    def git(*arguments: str, where: Path = repository) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=where, env=path_with_equivcheck, capture_output=True, text=True)

    repository.mkdir()
    git("init", "--quiet", "--bare", str(remote), where=tmp_path)
    git("init", "--quiet", "--initial-branch", "main")
    git("remote", "add", "origin", str(remote))
    (repository / "pkg").mkdir()
    for name in ("slow", "fast"):
        (repository / f"pkg/{name}.py").write_text(
            "from equivcheck.attention import CausalSelfAttention\n\n\nclass Attention(CausalSelfAttention):\n    pass\n"
        )
    # evidence as a GPU's would be, made here from one check; which device it names is not what is tested
    run = "verify pkg.slow:Attention pkg.fast:Attention --device cpu --profile quick --check checkpoint --report reports/cuda"
    done = subprocess.run(
        ["equivcheck", *run.split()], cwd=repository, env=path_with_equivcheck, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    hook = repository / ".git/hooks/pre-push"
    hook.write_text(
        hooks[0].replace("--require-device cuda", "--require-device cpu --check checkpoint --min-profile quick")
    )
    hook.chmod(0o755)
    git("add", ".")
    git("commit", "--quiet", "-m", "evidence")
    pushed = git("push", "--quiet", "origin", "main")
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    (repository / "pkg/fast.py").write_text((repository / "pkg/fast.py").read_text() + "\n# faster\n")
    git("commit", "--quiet", "--all", "-m", "faster")
    refused = git("push", "--quiet", "origin", "main")
    assert refused.returncode != 0
    assert "stale: pkg/fast.py (candidate) was changed after the run" in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    ("inputs", "status"),
    [
        ({}, 0),
        ({"reference": "equivcheck.attention:CausalSelfAttention", "candidate": "no.such:thing; touch owned"}, 2),
    ],
)
def test_the_action_verifies_and_leaves_the_report(
    tmp_path: Path, path_with_equivcheck: dict[str, str], inputs: dict[str, str], status: int
) -> None:
    action = yaml.safe_load(ACTION)
    given = {name: str(declared["default"]) for name, declared in action["inputs"].items()}
    given |= {
        "python": sys.executable,
        "device": "cpu",
        "profile": "quick",
        "arguments": "--check checkpoint --seed 3",
        **inputs,
    }
    _, step, keep = action["runs"]["steps"]
    assert not EXPRESSION.search(step["run"])
    filled = {}
    for name, value in step["env"].items():
        (expression,) = EXPRESSION.findall(value)
        filled[name] = given[expression.strip().removeprefix("inputs.")]
    where = tmp_path / "work"
    where.mkdir()
    summary = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GITHUB_ACTIONS": "true"}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=where,
        env={**path_with_equivcheck, **filled, **summary},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert not (where / "owned").exists()
    if status == 0:
        folder = where / given["report"]
        assert sorted(path.name for path in folder.iterdir()) == [
            "junit.xml",
            "report.html",
            "report.json",
            "report.md",
            "report.sarif",
        ]
        assert json.loads((folder / "report.json").read_text())["seed"] == 3
        assert (tmp_path / "summary.md").read_text().startswith("# equivcheck: equivalent")
    assert keep["with"]["path"] == "${{ inputs.report }}"


def test_a_killed_run_leaves_no_file_that_falsely_says_it_is_complete() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/killed.py"), "--kills", "4", "--seed", "7"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed: " in done.stdout  # where it was depends on how quick the machine is
