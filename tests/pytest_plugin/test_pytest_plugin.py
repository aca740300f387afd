"""`pytest --gpu`: what runs, what is deselected, and what is said about it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest

def test_anywhere():
    pass

def test_on_each(device):
    assert device in ("cpu", "cuda")

@pytest.mark.gpu
def test_gpu_only(device):
    assert device == "cuda"

@pytest.mark.gpu
def test_gpu_by_mark():
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest('pytest_plugins = ["equivcheck.pytest_plugin"]')
    pytester.makepyfile(SUITE)
    return pytester


def pretend_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: bool) -> None:
    there = SimpleNamespace(is_available=lambda: cuda, get_device_name=lambda: "NVIDIA Something")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=there, __version__="2.99"))


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "no:jaxtyping", "--strict-markers", *options)


def test_without_gpu_the_gpu_tests_are_deselected_and_the_header_says_so(project: pytest.Pytester) -> None:
    result = run(project, "-v")
    result.stdout.fnmatch_lines(
        [
            "equivcheck: cpu, torch *; tests marked gpu are deselected, run them with --gpu",
            "*::test_on_each?cpu? PASSED*",
        ]
    )
    result.assert_outcomes(passed=2, deselected=3)
    result.stdout.no_fnmatch_line("*cuda*")


def test_with_gpu_everything_runs_and_the_header_names_the_device(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_torch(monkeypatch, cuda=True)
    result = run(project, "--gpu", "-v")
    result.stdout.fnmatch_lines(["equivcheck: cuda, NVIDIA Something, torch 2.99"])
    result.stdout.fnmatch_lines_random(
        ["*::test_on_each?cpu? PASSED*", "*::test_on_each?cuda? PASSED*", "*::test_gpu_only?cuda? PASSED*"]
    )
    result.assert_outcomes(passed=5)


def test_gpu_without_a_cuda_device_is_a_usage_error(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch, cuda=False)
    result = run(project, "--gpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR == 4
    result.stderr.fnmatch_lines(["ERROR: --gpu was given, and torch 2.99 sees no CUDA device: *"])


def test_gpu_and_m_gpu_choose_the_gpu_tests_alone(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch, cuda=True)
    run(project, "--gpu", "-m", "gpu").assert_outcomes(passed=3, deselected=2)


def test_hypothesis_takes_the_device(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from hypothesis import given, strategies as st

        @given(number=st.integers())
        def test_given(device, number):
            assert device == "cpu"
        """
    )
    run(project).assert_outcomes(passed=1, deselected=1)


@pytest.mark.parametrize(
    "arguments",
    [
        '"device, size", [("meta", 1)]',
        '["device", "size"], [("meta", 1)]',
        'argnames="device,size", argvalues=[("meta", 1)]',
    ],
)
def test_a_device_that_is_parametrised_by_hand_stays_so(project: pytest.Pytester, arguments: str) -> None:
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize({arguments})
        def test_by_hand(device, size):
            assert (device, size) == ("meta", 1)
        """
    )
    run(project).assert_outcomes(passed=1)


def test_a_project_keeps_its_own_device_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def device():
            return "mine"

        def test_own(device):
            assert device == "mine"
        """
    )
    run(project).assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, equivcheck.pytest_plugin; "
        "sys.exit(', '.join({'torch', 'hypothesis', 'rich', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
