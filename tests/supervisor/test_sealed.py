"""A sealed run: the same report whatever becomes of its processes, and none of them left."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hostile.attentions import Hostile

import equivcheck
from equivcheck.api import verify
from equivcheck.errors import UsageError
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.codec import dumps
from equivcheck.report.model import CheckResult, Report
from equivcheck.supervisor import nurseries
from equivcheck.supervisor.confirmation import Confirmation

ORIGINAL = "equivcheck.attention:CausalSelfAttention"
FLASH = "equivcheck.attention:FlashCausalSelfAttention"
ROOT = Path(equivcheck.__file__).parents[1]
OPTIONS: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["output", "errors", "causality"]}
COMMAND = "--profile quick --device cpu --check output --check errors --check causality"


def without_times(text: str) -> dict[str, Any]:
    """A report, less what a clock has a part in."""
    content = json.loads(text)
    for name in ("seconds", "created", "integrity"):
        content.pop(name, None)
    for result in content["results"]:
        del result["seconds"]
    del content["sensitivity"]["seconds"]
    return dict(content)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a right and a wrong candidate for one original."""
    wrong = (
        "class Candidate(Wrong):\n    def forward(self, x):\n        y = super().forward(x)\n"
        "        return y if x.size(1) > 2 else y / 1.5\n"
    )
    for name, text in Hostile("wrong", wrong).files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "equivcheck", "verify", *more, *COMMAND.split(), "--json", "report.json"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in the background ignores Ctrl-C, and so would all that it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def children(process: int) -> list[int]:
    """The processes below this one."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        below.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [process]
    while todo:
        todo += (some := below.get(todo.pop(), []))
        found += some
    return found


def running(process: int) -> bool:
    try:
        return (Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]) != "Z"
    except OSError:
        return False


def wait_for_workers(process: subprocess.Popen[str], count: int = 2) -> list[int]:
    """The processes of a run, once there are so many."""
    for _ in range(600):
        found = children(process.pid)
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError("no worker was started")


@pytest.mark.parametrize("candidate", ["candidate:Right", "candidate:Candidate"])
def test_the_report_is_the_same_to_the_byte_for_any_number_of_jobs(pair: Path, candidate: str) -> None:
    one, *others = (
        without_times(dumps(verify("original:Original", candidate, jobs=jobs, **OPTIONS))) for jobs in (1, 2, 3)
    )
    assert one["verdict"] == ("equivalent" if candidate.endswith("Right") else "different")
    assert one["sealed"]
    for other in others:
        assert other == one


def test_the_report_is_the_same_where_workers_are_killed(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = without_times(dumps(verify("original:Original", "candidate:Right", jobs=2, **OPTIONS)))
    chance, killed, settling = random.Random(0), list[int](), list[str]()
    settle = Confirmation.settle

    def settled(self: Confirmation, worker: Any, piece: Any, case: str, death: Any) -> None:
        settling.append(case)
        settle(self, worker, piece, case, death)
        settling.remove(case)

    monkeypatch.setattr(Confirmation, "settle", settled)

    class Kills:
        """Kills a worker each time that so many more cases are done: never the second process of a case."""

        cases = 0

        def progress(self, stage: str, done: int, total: int) -> None:
            self.cases += 1
            if self.cases >= 12 * (len(killed) + 1) and len(killed) < 6 and not settling:
                (nursery,) = (n._process.pid for n in nurseries._nurseries.values())
                if workers := children(nursery):
                    killed.append(victim := chance.choice(workers))
                    os.kill(victim, signal.SIGKILL)

        def finished(self, result: CheckResult) -> None:
            pass

    disturbed = without_times(
        dumps(verify("original:Original", "candidate:Right", jobs=2, listener=Kills(), **OPTIONS))
    )
    assert len(killed) == 6
    assert disturbed == whole


def test_a_supervisor_that_is_killed_leaves_no_process_and_no_verdict(tmp_path: Path) -> None:
    process = start(tmp_path)
    below = wait_for_workers(process, 3)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(map(running, below)):
            break
        time.sleep(0.1)
    assert not any(map(running, below))
    file = tmp_path / "report.json"
    assert not file.exists() or json.loads(file.read_text())["verdict"] == "partial"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_is_partial(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    below = wait_for_workers(process, 3)
    for _ in range(600):
        if (tmp_path / "report.json").exists():
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out + err
    assert out.splitlines()[-1].startswith("partial: ")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "partial"
    assert not any(map(running, below))


def test_what_a_callback_raises_ends_the_run_and_propagates() -> None:
    class Listening:
        def progress(self, stage: str, done: int, total: int) -> None:
            if done:
                raise ZeroDivisionError("of the listener's own")

        def finished(self, result: Any) -> None:
            pass

    with pytest.raises(ZeroDivisionError, match="of the listener's own"):
        verify(ORIGINAL, FLASH, listener=Listening(), **OPTIONS)


def test_a_function_is_called_first_in_each_process(pair: Path) -> None:
    (pair / "prepares.py").write_text("import builtins\ndef set_up():\n    builtins.prepared = True\n")
    (pair / "needs.py").write_text("import builtins\nassert builtins.prepared\nfrom candidate import Right\n")
    report = verify("original:Original", "needs:Right", setup="prepares:set_up", jobs=2, **OPTIONS)
    assert report.equivalent
    for setup, words in (("prepares:nothing", "has no 'nothing'"), ("candidate:torch", "cannot be called")):
        with pytest.raises(UsageError, match=words):
            verify("original:Original", "needs:Right", setup=setup, **OPTIONS)


def test_equivcheck_is_not_started_by_the_code_that_it_runs(pair: Path) -> None:
    (pair / "starts.py").write_text(
        f"import equivcheck\nfrom candidate import Right\nequivcheck.verify({ORIGINAL!r}, {FLASH!r}, profile='quick')\n"
    )
    with pytest.raises(UsageError, match="started by the code that it runs"):
        verify("original:Original", "starts:Right", **OPTIONS)


def test_tests_beside_a_candidate_do_not_keep_it_from_being_judged(pair: Path) -> None:
    (pair / "both.py").write_text(
        "import equivcheck\nfrom candidate import Right\nTestRight = equivcheck.suite('original:Original', 'both:Right')\n"
    )
    assert verify("original:Original", "both:Right", **OPTIONS).equivalent


def test_what_a_pair_prints_is_shown_as_its_own(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pair / "prints.py").write_text(
        "import os\nfrom candidate import Right\nprint('::error::forged')\nos.write(2, b'from C\\x1b[31m')\n"
    )
    assert verify("original:Original", "prints:Right", **OPTIONS).equivalent
    lines = capsys.readouterr().err.splitlines()
    assert "| \\x3a:error::forged" in lines
    assert "| from C\\x1b[31m" in lines[-1]
    assert not any(line.lstrip().startswith("::") for line in lines)


def test_objects_run_in_this_process_and_the_report_says_so() -> None:
    from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

    report = verify(CausalSelfAttention, FlashCausalSelfAttention, **OPTIONS)
    assert report.equivalent
    assert not report.sealed
    assert ", unsealed, " in verdict_line(report)


def test_the_supervisor_imports_no_torch_and_nothing_of_a_pair() -> None:
    line = (
        "import sys, pkgutil, importlib, equivcheck.supervisor as s\n"
        "[importlib.import_module(f'equivcheck.supervisor.{m.name}') for m in pkgutil.iter_modules(s.__path__)]\n"
        "import equivcheck.cli\n"
        "print(sorted({'torch', 'numpy', 'hypothesis', 'equivcheck.cases.case', 'equivcheck.checks'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_a_pair_of_import_strings_loads_no_torch_in_the_process_that_asks() -> None:
    line = (
        f"import sys, equivcheck; report = equivcheck.verify({ORIGINAL!r}, {FLASH!r}, **{OPTIONS!r})\n"
        "print(report.verdict, 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["equivalent", "False"]


def test_two_runs_that_write_one_report_leave_a_whole_one(tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert Report.load(tmp_path / "report.json").equivalent


def test_a_folder_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    line = f"mkdir gone && cd gone && rmdir ../gone; exec {sys.executable} -m equivcheck verify {COMMAND}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_report_is_whole_where_few_files_may_be_open(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"ulimit -n 64; exec {sys.executable} -m equivcheck verify {COMMAND} --json report.json < /dev/null 0<&-",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Report.load(tmp_path / "report.json").equivalent
