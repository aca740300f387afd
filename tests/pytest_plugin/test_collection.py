"""The collection of suites: it imports no side and no torch, its ids follow from the kind, its mistakes are one line."""

import re
import subprocess
import sys
from typing import Any

import pytest

from equivcheck.errors import UsageError
from equivcheck.pytest_plugin.suite import suite

pytest_plugins = ["pytester"]

FIRST = "equivcheck.attention:CausalSelfAttention"
SECOND = "equivcheck.attention:FlashCausalSelfAttention"
SIDES = """
import os
from equivcheck.attention import CausalSelfAttention

open(f"imported-{os.getpid()}", "w").close()
"""
SUITES = """
import equivcheck
TestOne = equivcheck.suite("sides:CausalSelfAttention", "sides:CausalSelfAttention"{more})
TestTwo = equivcheck.suite("sides:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"{more})
TestModel = equivcheck.suite("equivcheck.gpt:GPT", "equivcheck.gpt:GPT", checks=["logits"]{of_model})
"""
CONFTEST = """
import subprocess, sys
pytest_plugins = ["equivcheck.pytest_plugin"]
started = []

class Counted(subprocess.Popen):
    def __init__(self, *given, **options):
        started.extend(word for word in given[0] if word == "equivcheck.worker")
        super().__init__(*given, **options)

subprocess.Popen = Counted

def pytest_unconfigure():
    print(f"started {len(started)}, torch {'torch' in sys.modules}, sides {'sides' in sys.modules}")
"""
NOT_LOADED = """
import equivcheck
TestBad = equivcheck.suite("raising:attention", "raising:attention"{more})
"""
MISSPELT = """
import equivcheck
TestBad = equivcheck.suite("no_such_package:Slow", "no_such_package:Fast")
"""
CHECKPOINT = """
import equivcheck
TestFlash = equivcheck.suite(
    "equivcheck.attention:CausalSelfAttention",
    "equivcheck.attention:FlashCausalSelfAttention",
    checks=["checkpoint"],
    dtypes=["float32", "float64"],
)
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """A session of pytest in a process of its own, which says at its end what it has imported and started."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_pair=source, sides=SIDES, raising="raise ValueError('no GPU\\nhere')")
    return pytester.runpytest_subprocess("-p", "no:jaxtyping", "-p", "no:cacheprovider", *options)


def ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


def test_a_kind_that_is_given_needs_no_process_and_no_import(pytester: pytest.Pytester) -> None:
    source = SUITES.format(more=', kind="module"', of_model=', kind="model"')
    result = run(pytester, source, "--collect-only", "-q")
    assert "test_pair.py::TestOne::test_holds[values-output-cpu-bfloat16]" in ids(result)
    result.stdout.fnmatch_lines(["started 0, torch False, sides False"])
    assert not list(pytester.path.glob("imported-*"))


def test_kinds_are_found_once_in_one_process_with_the_same_ids(pytester: pytest.Pytester) -> None:
    given = ids(run(pytester, SUITES.format(more=', kind="module"', of_model=', kind="model"'), "--collect-only", "-q"))
    result = run(pytester, SUITES.format(more="", of_model=""), "--collect-only", "-q")
    result.stdout.fnmatch_lines(["started 1, torch False, sides False"])
    assert len(list(pytester.path.glob("imported-*"))) == 1
    assert ids(result) == given
    assert "test_pair.py::TestModel::test_holds[values-logits-cpu-float32]" in given


def test_the_workers_of_xdist_collect_the_same_tests(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = run(pytester, CHECKPOINT, "-n", "2")
    result.assert_outcomes(passed=2)


def test_objects_are_collected_without_the_engine(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_pair="""
        import sys
        import equivcheck
        from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

        TestFlash = equivcheck.suite(CausalSelfAttention, FlashCausalSelfAttention)
        """,
        conftest="""
        import sys

        def pytest_unconfigure():
            print("engine", any(name.startswith("equivcheck.engine") for name in sys.modules))
        """,
    )
    result = pytester.runpytest_subprocess("-p", "no:jaxtyping", "--collect-only", "-q")
    assert "test_pair.py::TestFlash::test_holds[values-output-cpu-float32]" in ids(result)
    result.stdout.fnmatch_lines(["engine False"])


@pytest.mark.parametrize("chosen", ["", "gradients and bfloat16", "TestBad and values"])
def test_a_side_that_cannot_be_imported_is_one_line_of_a_test(pytester: pytest.Pytester, chosen: str) -> None:
    result = run(pytester, NOT_LOADED.format(more=""), "-k", chosen)
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(
        ["*TestBad.test_holds?not-loaded-cpu?*", "cannot import 'raising': ValueError: no GPU here"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*suite.py:*")


def test_with_a_kind_each_test_says_what_cannot_be_imported(pytester: pytest.Pytester) -> None:
    more = ', kind="function", checks=["output", "gradients"], dtypes=["float32"]'
    result = run(pytester, NOT_LOADED.format(more=more))
    result.assert_outcomes(failed=2, deselected=2)
    assert result.outlines.count("cannot import 'raising': ValueError: no GPU here") == 2
    result.stdout.no_fnmatch_line("*suite.py:*")


def test_a_misspelt_import_string_is_one_line_of_the_collection(pytester: pytest.Pytester) -> None:
    result = run(pytester, MISSPELT)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    said = result.outlines
    at = next(number for number, line in enumerate(said) if re.search("ERROR collecting test_pair.py", line))
    assert said[at + 1] == "cannot import 'no_such_package': ModuleNotFoundError: No module named 'no_such_package'"
    assert said[at + 2].startswith("===")
    result.stdout.fnmatch_lines(["started 0, torch False, sides False"])


def test_a_check_that_does_not_apply_is_one_line_of_the_collection(pytester: pytest.Pytester) -> None:
    result = run(pytester, CHECKPOINT.replace("checkpoint", "replacement.twice"))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["check 'replacement.twice' does not apply to a module: allowed are *"])
    result.stdout.no_fnmatch_line("*suite.py:*")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "layer"}, "unknown kind 'layer': allowed are auto, module"),
        ({"profile": "fast"}, "unknown profile 'fast': allowed are screen, quick"),
        ({"dtypes": ["int8"]}, "unknown dtype 'int8': allowed are float32"),
        ({"checks": ["outputs"]}, "unknown check 'outputs' (did you mean 'output'?)"),
        ({"exclude": ["outputs"]}, "unknown check 'outputs' (did you mean 'output'?)"),
        ({"kind": "function", "checks": ["checkpoint"]}, "check 'checkpoint' does not apply to a function"),
        ({"require": "numbers"}, "require: unknown level 'numbers'"),
        ({"deviations": {"outputs": "wanted"}}, "unknown deviation 'outputs'"),
        ({"domain": "heads > 3"}, "domain 'heads > 3': at column 1"),
        ({"setup": "no_such_package:set_up"}, "cannot import 'no_such_package'"),
        ({"oracle": "no_such_package:oracle"}, "cannot import 'no_such_package'"),
        ({"transfer": "automatic"}, "'automatic' is no import string"),
    ],
)
def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}") as raised:
        suite(FIRST, SECOND, **options)
    assert isinstance(raised.value, pytest.Collector.CollectError)


def test_a_class_that_inherits_from_a_suite_has_tests_of_its_making(pytester: pytest.Pytester) -> None:
    source = CHECKPOINT.replace("TestFlash =", "class TestFlash(").replace(
        "    dtypes", "    kind='module',\n    dtypes"
    )
    result = run(
        pytester, source.rstrip() + "):\n    def test_more(self, tmp_path):\n        pass\n", "--collect-only", "-q"
    )
    assert ids(result)[-1] == "test_pair.py::TestFlash::test_more"
    assert len(ids(result)) == 3


def test_the_module_of_the_suite_loads_no_torch() -> None:
    program = f"import sys, equivcheck; equivcheck.suite({FIRST!r}, {SECOND!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
