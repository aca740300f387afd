"""What evidence covers: a pair is verified once, then one thing that it depends on is changed, and the gate names it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from equivcheck.api import verify
from equivcheck.engine.gate.verdict import GatePolicy, notes, violations
from equivcheck.report.installed_packages import version_of
from equivcheck.report.model import Package, Report

PAIR = ("pairpkg.slow:Attention", "pairpkg.fast:Attention")


SITE = "env/site-packages"


SOURCES = {
    "pairpkg/__init__.py": "",
    "pairpkg/slow.py": "from equivcheck.attention import CausalSelfAttention\n\n\n"
    "class Attention(CausalSelfAttention):\n    pass\n",
    "pairpkg/fast.py": """import importlib
from pathlib import Path

import helperpkg

import strayhelper
from equivcheck.attention import CausalSelfAttention


class Attention(CausalSelfAttention):
    def forward(self, x):
        kernel = importlib.import_module(".".join(("pairpkg", "kernels")))
        source = Path(__file__).with_name("kernel.cu").read_text()
        assert kernel.NAME in source
        if self.training:
            Path(__file__).with_name("training.cu").read_text()
        Path("scratch.txt").write_text("a product of the run")
        Path("scratch.txt").read_text()
        return helperpkg.same(super().forward(x))
""",
    "pairpkg/kernels.py": "from pairpkg import constants\n\nNAME = constants.NAME\n",
    "pairpkg/constants.py": "NAME = 'forward'\n",
    "pairpkg/kernel.cu": "__global__ void forward() {}\n",
    "pairpkg/training.cu": "__global__ void backward() {}\n",
    "pairpkg/unused.py": "x = 1\n",
    "pairpkg/unused.cu": "x\n",
    f"{SITE}/helperpkg/__init__.py": "from helperpkg.inner import same\n",
    f"{SITE}/helperpkg/inner.py": "def same(x):\n    return x\n",
    f"{SITE}/helperpkg-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: helperpkg\nVersion: 1.2\n",
    f"{SITE}/helperpkg-1.2.dist-info/RECORD": "helperpkg/__init__.py,,\nhelperpkg/inner.py,,\n"
    "helperpkg-1.2.dist-info/METADATA,,\nhelperpkg-1.2.dist-info/RECORD,,\n",
    f"{SITE}/strayhelper.py": "x = 1\n",
}


DEMANDS = {"checks": ("checkpoint", "modes"), "min_profile": "quick"}


def written(folder: Path) -> Path:
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        os.utime(folder / name, (1, 1))  # long before the run
    return folder


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pairpkg", "helperpkg", "strayhelper")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Report]]:
    """The project as it was verified, and the report of that."""
    folder = written(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), str(folder / SITE), *sys.path])
        yield folder, verify(*PAIR, device="cpu", profile="quick", checks=["checkpoint", "modes"])
        forget()


@pytest.fixture
def project(
    verified: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Report]]:
    """A checkout of the project, as a gate meets it elsewhere."""
    folder, report = verified
    here = tmp_path / "checkout"
    shutil.copytree(folder, here, ignore=shutil.ignore_patterns("__pycache__", "scratch.txt"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [str(here), str(here / SITE), *(p for p in sys.path if str(folder) not in p)])
    yield here, report
    forget()


def reasons(folder: Path, report: Report, **demands: object) -> list[str]:
    return list(violations({"r": report}, GatePolicy(root=folder, **{**DEMANDS, **demands})))  # type: ignore[arg-type]


def test_the_report_says_what_it_covers(project: tuple[Path, Report]) -> None:
    folder, report = project
    assert reasons(folder, report) == []
    covered = [set(report.files[part]) - {"equivcheck/attention.py"} for part in ("reference", "candidate", "loaded")]
    loaded = {"pairpkg/__init__.py", "pairpkg/kernels.py", "pairpkg/constants.py", "strayhelper.py"}
    assert covered == [{"pairpkg/slow.py"}, {"pairpkg/fast.py"}, loaded]
    assert set(report.files["read"]) == {"pairpkg/kernel.cu", "pairpkg/training.cu"}
    assert report.packages["helperpkg"].version == "1.2"
    assert set(report.packages) <= {"helperpkg", "jaxtyping"}  # the latter is the base class's
    assert report.dtypes == ("float32", "float64", "bfloat16", "float16")
    assert report.not_covered == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pairpkg/slow.py", "pairpkg/slow.py (reference) was changed"),
        ("pairpkg/kernel.cu", "pairpkg/kernel.cu (read by the pair) was changed"),
        ("pairpkg/training.cu", "pairpkg/training.cu (read by the pair) was changed"),
        ("pairpkg/kernels.py", "pairpkg/kernels.py (loaded by the pair) was changed"),
        ("pairpkg/constants.py", "pairpkg/constants.py (loaded by the pair) was changed"),
        (f"{SITE}/strayhelper.py", "strayhelper.py (loaded by the pair) was changed"),
        (f"{SITE}/helperpkg/inner.py", "the package helperpkg 1.2 has other files here"),
        ("pairpkg/unused.py", ""),
        ("pairpkg/unused.cu", ""),
    ],
)
def test_whatever_the_pair_depends_on_makes_its_evidence_stale(
    project: tuple[Path, Report], name: str, words: str
) -> None:
    folder, report = project
    with (folder / name).open("a") as file:
        file.write("\n# changed\n")
    refused = reasons(folder, report)
    assert len(refused) == bool(words)
    assert all(reason.startswith(f"r: stale: {words}") for reason in refused) or words in refused[0]


def test_another_version_of_a_helper_package_is_a_note_or_refused(project: tuple[Path, Report]) -> None:
    folder, report = project
    (folder / SITE / "helperpkg-1.2.dist-info").rename(folder / SITE / "helperpkg-1.3.dist-info")
    metadata = folder / SITE / "helperpkg-1.3.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))
    words = "the run was made with the package helperpkg 1.2, and here is 1.3"
    assert version_of("helperpkg") == "1.3"
    assert reasons(folder, report) == []
    assert f"r: {words}" in list(notes({"r": report}, GatePolicy(root=folder, **DEMANDS)))  # type: ignore[arg-type]
    assert words in reasons(folder, report, strict_environment=True)[0]


def test_what_a_file_was_when_it_was_read_is_what_ran(project: tuple[Path, Report]) -> None:
    folder, _ = project
    with (folder / "pairpkg/fast.py").open("a") as file:  # a file that is edited while the pair runs
        file.write(
            "\n_EDITED = []\n_forward = Attention.forward\n\n\ndef forward(self, x):\n    y = _forward(self, x)\n"
            "    if not _EDITED:\n        _EDITED.append(1)\n        import os\n\n"
            "        os.utime(Path(__file__).with_name('kernel.cu'), ns=(1, 1))\n    return y\n\n\nAttention.forward = forward\n"
        )
    report = verify(*PAIR, device="cpu", profile="quick", checks=["checkpoint"], dtypes=["float32"])
    demands = {"checks": ("checkpoint",), "dtypes": ("float32",)}
    assert [reason for reason in reasons(folder, report, **demands) if "stale" in reason] == [
        "r: stale: pairpkg/kernel.cu (read by the pair) was changed while the pair ran; run equivcheck verify again"
    ]


@pytest.mark.usefixtures("project")
def test_what_only_another_process_reads_is_covered_too() -> None:
    report = verify(*PAIR, device="cpu", profile="quick", checks=["modes"], jobs=2, max_seconds=60)
    assert "pairpkg/training.cu" in report.files["read"]


def test_a_pair_of_files_in_another_folder_is_found_again_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    for name in ("slow", "fast"):
        (tmp_path / f"there/{name}_of_a_pair.py").write_text(
            "from pathlib import Path\n\nfrom equivcheck.attention import CausalSelfAttention\n\n"
            "Path(__file__).with_name('kernel.cu').read_text()\n\n\nclass A(CausalSelfAttention):\n    pass\n"
        )
    (tmp_path / "there/kernel.cu").write_text("")
    os.utime(tmp_path / "there/kernel.cu", (1, 1))
    monkeypatch.chdir(tmp_path / "here")
    before = list(sys.path)
    pair = ("../there/slow_of_a_pair.py:A", "../there/fast_of_a_pair.py:A")
    report = verify(*pair, device="cpu", profile="quick", checks=["checkpoint"], dtypes=["float32"])
    monkeypatch.setattr(sys, "path", before)  # as in the process of a gate
    demands = {"checks": ("checkpoint",), "dtypes": ("float32",)}
    assert reasons(tmp_path / "here", report, **demands) == []
    (tmp_path / "there/kernel.cu").write_text("changed")
    assert (
        "stale: ../there/kernel.cu (read by the pair) was changed" in reasons(tmp_path / "here", report, **demands)[0]
    )


def test_a_pair_that_was_loaded_before_says_what_it_may_have_read(project: tuple[Path, Report]) -> None:
    import pairpkg.fast
    import pairpkg.slow

    report = verify(
        pairpkg.slow.Attention,
        pairpkg.fast.Attention,
        device="cpu",
        profile="quick",
        checks=["checkpoint"],
        dtypes=["float32"],
    )
    assert "what pairpkg.fast read while it was imported, which was before the run" in report.not_covered
    assert report.files["loaded"].keys() >= {"pairpkg/kernels.py", "strayhelper.py"}


def test_a_package_is_part_of_what_a_report_is_read_back_with(project: tuple[Path, Report], tmp_path: Path) -> None:
    _, report = project
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report
    assert replace(report, packages={"x": Package("1")}).packages["x"].sha256 == ""
