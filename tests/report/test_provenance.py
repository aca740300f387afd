"""Where a verdict comes from: its evidence goes stale with what it depends on, and with nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import equivcheck
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import BESIDE_THE_VERDICT, OF_THE_VERDICT, environment, is_of_the_verdict, sources
from equivcheck.runtime.device import device_name

PACKAGE = Path(equivcheck.__file__).parent
RENDERING = ("engine/gate/sources.py", "report/table.py", "report/markdown.py", "report/junit.py", "report/codec.py")
STARTING = (
    "__main__.py",
    "cli/main.py",
    "cli/progress.py",
    "cli/config.py",
    "report/outputs.py",
    "pytest_plugin/suite.py",
)
OF_A_RUN = (
    "api.py",
    "engine/search.py",
    "engine/planting.py",
    "report/outcomes.py",
    "report/model.py",
    "report/provenance.py",
    "worker/covered.py",
)
OF_A_CASE = ("pairs/pair.py", "numerics/monte_carlo.py", "numerics/comparison.py", "cases/case.py", "__init__.py")
CHECKS_AND_FAULTS = sorted(
    f.relative_to(PACKAGE).as_posix() for folder in ("checks", "faults") for f in (PACKAGE / folder).rglob("*.py")
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's sources, to be changed."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "equivcheck", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def subject() -> Pair:
    original = "equivcheck.attention:CausalSelfAttention"
    return resolve(original, original, kind="module", device="cpu")


def hashes(subject: Pair, *package: Path) -> dict[str, str]:
    return sources(subject.reference, subject.candidate, *package)


def change(file: Path) -> None:
    file.write_text(file.read_text() + "\nCHANGED = True\n")


def test_a_copy_of_the_package_has_the_hash_of_the_package_that_runs(package: Path, subject: Pair) -> None:
    assert hashes(subject, package) == hashes(subject)


def test_the_files_of_the_pair_are_hashed_too(subject: Pair) -> None:
    found = hashes(subject)
    assert set(found) == {"equivcheck", "reference", "candidate"}
    assert all(len(digest) == 64 for digest in found.values())
    assert found["reference"] == found["candidate"] != found["equivcheck"]


@pytest.mark.parametrize("name", [*RENDERING, *STARTING])
def test_what_renders_a_report_or_starts_a_run_leaves_the_hash(package: Path, subject: Pair, name: str) -> None:
    change(package / name)
    assert hashes(subject, package) == hashes(subject)


@pytest.mark.parametrize("name", [*OF_A_RUN, *OF_A_CASE, *CHECKS_AND_FAULTS])
def test_what_a_verdict_depends_on_changes_the_hash(package: Path, subject: Pair, name: str) -> None:
    change(package / name)
    assert hashes(subject, package)["equivcheck"] != hashes(subject)["equivcheck"]


def test_a_check_that_is_new_gone_or_renamed_changes_the_hash(package: Path, subject: Pair) -> None:
    check = package / "checks" / "values.py"
    seen = [hashes(subject, package)["equivcheck"]]
    shutil.copy(check, check.with_name("more_values.py"))
    seen.append(hashes(subject, package)["equivcheck"])
    check.unlink()
    seen.append(hashes(subject, package)["equivcheck"])
    check.with_name("more_values.py").unlink()
    seen.append(hashes(subject, package)["equivcheck"])
    assert len(set(seen)) == 4


def test_what_is_left_out_exists() -> None:
    assert [name for name in (*BESIDE_THE_VERDICT, *OF_THE_VERDICT) if not (PACKAGE / name).exists()] == []


def test_a_verdict_is_reached_without_what_is_left_out() -> None:
    judge = """
import sys
from pathlib import Path
import equivcheck
from equivcheck.attention import CausalSelfAttention as original
from equivcheck.api import verify
verify(original, original, device="cpu", profile="quick", checks=["checkpoint"])
package = Path(equivcheck.__file__).parent
for module in list(sys.modules.values()):
    file = Path(getattr(module, "__file__", None) or "/")
    if file.is_relative_to(package):
        print(file.relative_to(package).as_posix())
"""
    done = subprocess.run([sys.executable, "-c", judge], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"api.py", "engine/planting.py", "supervisor/run.py", "report/model.py"} <= loaded
    # the folder of report/model.py is a package, and that file is empty; the others show what a pair in a worker prints
    printing = {"report/files.py", "report/printed.py", "report/streams.py", "report/text_stream.py"}
    assert {name for name in loaded if not is_of_the_verdict(name)} - printing == {"report/__init__.py"}
    assert not (PACKAGE / "report/__init__.py").read_text()


def test_the_environment_tells_the_versions_and_the_device_its_name() -> None:
    cpu = torch.device("cpu")
    assert device_name(cpu) == "cpu"
    found = environment(cpu)
    assert found["torch"] == torch.__version__
    assert found["threads"] == str(torch.get_num_threads())
    assert "gpu" not in found
