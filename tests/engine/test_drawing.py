"""Which cases are drawn depends on the strategy, their number and the seed."""

from pathlib import Path

import pytest

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases
from equivcheck.engine.drawing import draw_cases


def drawn(seed: int) -> list[str]:
    seen: list[str] = []
    draw_cases(cases(), 200, seed, lambda case: seen.append(case.id))
    return seen


def test_a_seed_draws_the_same_cases_whatever_a_user_has_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn(0)
    (tmp_path / "attention_of_a_user.py").write_text(f"SEEDS = {list(range(40_000, 41_000))}\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("attention_of_a_user")
    assert drawn(0) == before


def test_another_seed_draws_other_cases() -> None:
    assert drawn(0) != drawn(1)


def test_the_constants_of_hypothesis_are_put_back_after_a_failure() -> None:
    providers = pytest.importorskip("hypothesis.internal.conjecture.providers")
    if not hasattr(providers, "_get_local_constants"):
        pytest.skip("this Hypothesis draws no constants of loaded modules")
    before = providers._get_local_constants, providers.CONSTANTS_CACHE

    def fails(case: Case) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        draw_cases(cases(), 1, 0, fails)
    assert (providers._get_local_constants, providers.CONSTANTS_CACHE) == before
