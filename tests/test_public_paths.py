"""The import paths that users have stay what they are, wherever the code lies."""

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "equivcheck": (
        "Case",
        "CheckResult",
        "Mismatch",
        "Report",
        "UsageError",
        "assert_equivalent",
        "suite",
        "verify",
    ),
    "equivcheck.attention": (
        "CausalSelfAttention",
        "FlashCausalSelfAttention",
        "replace_attention_with_flash_attention",
        "restore_original_attention",
    ),
    "equivcheck.gpt": ("GPT", "GPTConfig"),
    "equivcheck.pytest_plugin": ("pytest_addoption",),
    "equivcheck.adapters.huggingface": (),
    "equivcheck.adapters.kernels": (),
    "equivcheck.faults": ("FAULTS", "RIGHT"),
    "equivcheck.report.schema": (),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_public_path_gives_its_names(path: str) -> None:
    module = importlib.import_module(path)
    assert [name for name in PATHS[path] if not hasattr(module, name)] == []


def test_the_attentions_are_of_the_module_that_reports_and_pickles_name() -> None:
    from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

    assert {CausalSelfAttention.__module__, FlashCausalSelfAttention.__module__} == {"equivcheck.attention"}


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "equivcheck", "--help"], capture_output=True, text=True, check=True)
    assert "verify" in done.stdout
