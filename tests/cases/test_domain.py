"""The domain: its grammar and messages, what is drawn inside of it, and the nearest case that is."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equivcheck.cases.case import Case
from equivcheck.cases.domain import EVERYWHERE, Domain, require_grammar
from equivcheck.cases.domain_fields import NAMES, values_of
from equivcheck.cases.domain_learning import learned
from equivcheck.cases.domain_solving import Solver, allowed_values, is_possible, nearest
from equivcheck.cases.features import FEATURES
from equivcheck.cases.space import CaseSpace
from equivcheck.cases.strategies import cases
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.engine.drawing import draw_cases
from equivcheck.errors import UsageError

CASE = Case(batch_size=2, seq_len=64, n_head=12, head_size=64, block_size=65, dtype="bfloat16", attn_pdrop=0.1)
FULL = CaseSpace(features=frozenset(FEATURES), is_causal=(True, False))
ALLOWED = [
    "head_size in (64, 128) and seq_len % 64 == 0 and dtype == 'bfloat16'",
    "n_head * head_size == 768",
    "n_embd == 768",
    "32 < seq_len <= 64 < 2 * seq_len",
    "not is_causal or mask not in ['some', 'bias']",
    "kv_len == seq_len and kv_heads == n_head and value_size == head_size",
    "scale == 1 / 8",
    "attn_pdrop + resid_pdrop < 0.2 and not training",
    "n_layer == 12 and vocab_size == 50257",
    "seq_len // 2 - 1 == 31 and -seq_len < 0",
    "device == 'cuda' or seq_len < 100",
    "(seq_len == 1 or head_size == 64) and True",
]
REFUSED = [
    "head_size < 64",
    "seq_len % (n_head - 12) == 0",
    "64 / (n_head - 12) > 1",
    "dtype in ('float16', 'float32')",
    "is_causal == False",
    "mask == 'some'",
]
JOINT = [
    "n_head * head_size == 768",
    "n_embd == 768 and seq_len % 64 == 0 and dtype == 'bfloat16'",
    "kv_len == seq_len",
    "kv_len >= seq_len and kv_len % 64 == 0",
    "seq_len % block_size == 0",
    "seq_len == head_size",
    "head_size in (192, 256)",
    "seq_len >= 1024",
    "n_head == 12",
    "kv_heads == 8 and n_head == 32",
    "n_head // kv_heads in (1, 4)",
    "(seq_len <= 16 and head_size == 8) or (seq_len > 64 and head_size == 64)",
    "scale < 0.1",
    "block_size == 1024",
    "training or attn_pdrop == 0",
    "value_size != head_size",
]
MESSAGES = {
    "": "it is empty",
    "head_siz == 64": "at column 1, 'head_siz': unknown name; did you mean 'head_size'? Allowed are head_size, seq_len",
    "seq_len == 1 and depth > 2": "at column 18, 'depth': unknown name; Allowed are",
    "head_size = 64": "at column",
    "head_size in 64": "at column 14, '64': a list such as (64, 128) is allowed here",
    "head_size == (64, 128)": "at column 14, '(64, 128)': a single value, or in is allowed here",
    "(1, 2) in head_size": "",
    "head_size in ()": "at column 14, '()': an empty list allows nothing",
    "'bfloat16' < 3": "at column 14, '3': 3 is a number, and 'bfloat16' is a text",
    "dtype < 'float16'": "at column 1, 'dtype': it is a text, which has no order",
    "dtype == 'bf16'": "dtype is one of 'float32'",
    "dtype == 'bfloat61'": "did you mean 'bfloat16'? dtype is one of",
    "mask == 'caual'": "mask is one of ''",
    "seq_len % 0 == 1": "at column 1, 'seq_len % 0': it divides by zero",
    "seq_len": "at column 1, 'seq_len': it is a number, and true or false is allowed",
    "is_causal and 3": "at column 15, '3': it is a number",
    "is_causal == 1": "1 is a number, and is_causal is true or false",
    "head_size ** 2 == 4": "at column 1, 'head_size ** 2': BinOp is not allowed; allowed are names, literals",
    "__import__('os').system('true') == 0": "Call is not allowed",
    "head_size.real == 3": "Attribute is not allowed",
    "[x for x in (1,)] == 1": "",
    "lambda: 1": "Lambda is not allowed",
    "head_size == None": "at column 14, 'None': no such literal is allowed",
    "seq_len == 99999999999999999999": "no such literal is allowed",
    "é == 1": "at column 1, 'é': unknown name",
    "dtype == 'é' or é": "at column 10, \"'é'\": dtype is one of",
    "(" * 500 + "seq_len" + ")" * 500: "",
    "seq_len == 1 and " * 400 + "seq_len == 1": "shorten it",
    "seq_len \x00 == 1": "",
}


@pytest.mark.parametrize("text", ALLOWED)
def test_a_case_that_meets_the_conditions_is_inside(text: str) -> None:
    domain = Domain.parse(text)
    assert domain.allows(CASE)
    assert domain.text == text
    assert not (Domain.parse("batch_size == 3") & domain).allows(CASE)


@pytest.mark.parametrize("text", REFUSED)
def test_a_case_that_misses_a_condition_or_gives_it_no_value_is_outside(text: str) -> None:
    assert not Domain.parse(text).allows(CASE)


@pytest.mark.parametrize("text", MESSAGES, ids=lambda text: text[:30])
def test_what_the_grammar_lacks_is_one_line_with_the_place(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Domain.parse(text)
    (line,) = str(refused.value).splitlines()
    assert MESSAGES[text] in line
    with pytest.raises(UsageError):
        require_grammar(text)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from([*NAMES, *"()[],<=%*-+", " and ", " in ", "64", "'x'"])).map("".join)
)
def test_any_text_is_a_domain_or_refused_in_one_line(text: str) -> None:
    refusal = ""
    try:
        domain = Domain.parse(text)
    except UsageError as error:
        refusal = str(error)
    else:
        assert domain.allows(CASE) in (True, False)
    assert len(refusal.splitlines()) <= 1


def test_the_device_is_open_until_it_is_known() -> None:
    domain = Domain.parse("device == 'cuda'")
    assert domain.allows(CASE)
    assert domain.on("cuda").allows(CASE)
    assert not domain.on("cpu").allows(CASE)


def test_two_domains_together_have_a_text_that_means_the_same() -> None:
    both = Domain.parse("seq_len < 3 or seq_len > 60") & Domain.parse("head_size == 64") & EVERYWHERE
    assert both.text == "(seq_len < 3 or seq_len > 60) and head_size == 64"
    assert Domain.parse(both.text) == both
    assert both.allows(CASE)
    assert not EVERYWHERE
    assert EVERYWHERE.allows(CASE)


@settings(max_examples=300, database=None)
@given(cases(FULL), st.sampled_from([*JOINT, *ALLOWED, *REFUSED]), st.data())
def test_what_is_false_of_some_values_is_false_of_every_case_with_them(
    case: Case, text: str, data: st.DataObject
) -> None:
    domain = Domain.parse(text)
    known = {name: value for name, value in values_of(case).items() if data.draw(st.booleans())}
    if domain.allows(case):
        assert domain.may_allow(known)


# --- drawing ----------------------------------------------------------------------------------------------------------


def drawn(space: CaseSpace, text: str, monkeypatch: pytest.MonkeyPatch, count: int = 60) -> tuple[list[Case], int]:
    """The cases of a space inside of a domain, and the number of attempts at one."""
    attempts, inside = 0, []
    left = Solver.left

    def counted(self: Solver, name: str, *arguments: Any, **more: Any) -> Any:
        nonlocal attempts
        attempts += name == self.order[0]
        return left(self, name, *arguments, **more)

    monkeypatch.setattr(Solver, "left", counted)
    draw_cases(cases(space, domain=Domain.parse(text)), count, 0, inside.append)
    return inside, attempts


@pytest.mark.parametrize("text", JOINT)
@pytest.mark.parametrize("space", [FULL, TRANSFORMED.but(features=FULL.features)], ids=["whole", "small"])
def test_every_drawn_case_is_inside_and_hardly_a_draw_is_refused(
    space: CaseSpace, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, attempts = drawn(space, text, monkeypatch)
    assert inside
    assert all(Domain.parse(text).allows(case) for case in inside)
    assert len(inside) >= 0.95 * attempts


def test_a_joint_condition_reaches_the_sizes_of_models_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, _ = drawn(CaseSpace(), "n_embd == 768", monkeypatch, count=150)
    assert {(12, 64), (6, 128)} <= {(case.n_head, case.head_size) for case in inside}


def test_limits_give_way_to_the_nearest_values_and_cost_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, _ = drawn(TRANSFORMED, "seq_len % 64 == 0 and head_size > 40", monkeypatch)
    assert {case.seq_len for case in inside} <= {64, 128}
    assert {case.head_size for case in inside} <= set(range(41, 100))
    assert max(case.batch_size * case.n_head * case.seq_len**2 for case in inside) <= 2**17


def test_a_pinned_limit_does_not_give_way() -> None:
    space = CaseSpace(max_seq_len=32, domain=Domain.parse("seq_len >= 64"))
    assert is_possible(space)
    assert not is_possible(space.but(pinned=frozenset(["seq_len"])))


def test_a_contradiction_is_not_possible() -> None:
    assert not is_possible(CaseSpace(domain=Domain.parse("head_size < 32 and head_size > 64")))


def test_the_values_that_are_left_of_a_table_can_be_asked_for() -> None:
    space = CaseSpace(domain=Domain.parse("head_size in (64, 128) and dtype != 'float64'"))
    assert allowed_values(space, "head_size") == [64, 128]
    assert "float64" not in allowed_values(space, "dtype")


@pytest.mark.parametrize("text", JOINT)
def test_a_case_moves_no_further_than_the_domain_asks(text: str) -> None:
    domain = Domain.parse(text)
    moved = nearest(CASE, domain, features=frozenset(FEATURES))
    assert moved is not None
    assert domain.allows(moved)
    assert moved.regime == CASE.regime
    assert nearest(moved, domain) is moved


@settings(deadline=None, max_examples=20, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 600), st.sampled_from((1, 8, 16, 64)))
def test_shrinking_ends_at_the_smallest_case_inside(least: int, step: int) -> None:
    domain = Domain.parse(f"seq_len >= {least} and seq_len % {step} == 0")
    seen: list[Case] = []

    def failing(case: Case) -> None:
        seen.append(case)
        assert not case

    with pytest.raises(AssertionError):
        draw_cases(cases(CaseSpace(domain=domain)), 20, 0, failing)
    assert seen[-1].seq_len == -(-least // step) * step
    assert all(domain.allows(case) for case in seen)


# --- functions --------------------------------------------------------------------------------------------------------


def meant(case: Case) -> bool:
    return case.head_size in (64, 128) and case.seq_len % 64 == 0 and case.dtype == "bfloat16"


def test_what_a_function_accepts_is_learned_and_drawn() -> None:
    domain = learned(Domain.of(meant, "pkg:meant"))
    seen: list[Case] = []
    draw_cases(cases(CaseSpace(domain=domain)), 50, 0, seen.append)
    assert len(seen) == 50
    assert all(map(meant, seen))
    assert domain.text == "pkg:meant"
    assert (domain & Domain.parse("n_head == 2")).text == "pkg:meant and n_head == 2"


def test_a_function_that_accepts_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="accepts none of") as refused:
        learned(Domain.of(lambda case: False, "pkg:none"))
    assert len(str(refused.value).splitlines()) == 1


def test_a_function_that_raises_is_refused_with_its_exception() -> None:
    with pytest.raises(UsageError, match=r"'pkg:bad' raised AttributeError on B1-T1") as refused:
        Domain.of(lambda case: case.nothing, "pkg:bad").allows(Case())
    assert len(str(refused.value).splitlines()) == 1
