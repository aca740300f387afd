"""The strategies: every size can come, interesting ones come often, limits hold, and shrinking ends at the smallest."""

from collections import Counter
from typing import Any

from hypothesis import find, given, settings
from hypothesis import strategies as st

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases, simpler, sizes
from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.engine.drawing import draw_cases
from equivcheck.numerics.dtypes import DTYPES

THOROUGH = settings(database=None, max_examples=2000)


@given(st.integers(1, 600), st.integers(1, 64))
def test_a_table_of_sizes_holds_every_size_in_ascending_order(largest: int, typical: int) -> None:
    table = sizes(largest, typical=typical)
    assert list(table) == sorted(table)
    assert set(table) == set(range(1, largest + 1))


def test_the_edges_of_tiles_weigh_more_than_their_neighbours() -> None:
    weights = Counter(sizes(512, typical=48))
    for edge in (63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512):
        assert weights[edge] >= 4 * weights[100]
    assert weights[1] > weights[5]


@given(
    st.data(),
    st.integers(1, 300),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 128),
    st.sampled_from((None, True, False)),
)
def test_cases_stay_within_their_limits(
    data: st.DataObject, seq_len: int, batch_size: int, heads: int, head_size: int, training: bool | None
) -> None:
    case = data.draw(
        cases(
            max_seq_len=seq_len,
            max_batch_size=batch_size,
            max_heads=heads,
            max_head_size=head_size,
            training=training,
            dtypes=DTYPES[:2],
            regimes=REGIMES[:2],
            layouts=LAYOUTS[:2],
            rates=(0.1,),
            train_rates=(0.5,),
        )
    )
    assert 1 <= case.seq_len <= seq_len
    assert 1 <= case.batch_size <= batch_size
    assert 1 <= case.n_head <= heads
    assert 1 <= case.head_size <= head_size
    assert case.block_size >= case.seq_len
    assert case.dtype in DTYPES[:2]
    assert case.regime in REGIMES[:2]
    assert case.layout in LAYOUTS[:2]
    assert training in (None, case.training)
    assert (case.attn_pdrop, case.resid_pdrop) == ((0.5, 0.5) if case.training else (0.1, 0.1))


@given(cases())
def test_no_case_is_so_large_that_it_takes_long(case: Case) -> None:
    assert case.n_head * case.head_size <= 512
    assert case.batch_size * case.n_head == 1 or case.batch_size * case.n_head * case.seq_len**2 <= 2**17


@given(cases())
def test_an_attention_has_no_layers_and_no_vocabulary(case: Case) -> None:
    assert (case.n_layer, case.vocab_size, case.tokens, case.scale, case.is_causal) == (0, 1, "random", None, True)


@given(cases(n_layers=(1, 3)))
def test_a_model_has_layers_and_a_vocabulary(case: Case) -> None:
    assert case.n_layer in (1, 3)
    assert case.vocab_size in (2, 17, 73)


def smallest(condition: Any, **limits: Any) -> Case:
    """As a search ends: what Hypothesis comes to, and from there what is simpler by one field, as long as there is something."""
    found = find(cases(**limits), condition, settings=THOROUGH)
    while (next_one := next((case for case in simpler(found) if condition(case)), None)) is not None:
        found = next_one
    return found


def test_the_simplest_case_is_the_smallest() -> None:
    assert smallest(lambda case: True) == Case()


def test_shrinking_ends_at_the_smallest_length_and_all_else_at_1() -> None:
    case = smallest(lambda case: case.seq_len > 256)
    assert (case.seq_len, case.batch_size, case.n_head, case.head_size, case.block_size) == (257, 1, 1, 1, 257)


def test_shrinking_crosses_sizes_that_are_not_interesting() -> None:
    assert smallest(lambda case: case.seq_len >= 90).seq_len == 90
    assert smallest(lambda case: case.head_size >= 77).head_size == 77


def test_shrinking_keeps_only_the_dimension_that_matters() -> None:
    case = smallest(lambda case: case.n_head >= 3)
    assert (case.n_head, case.seq_len, case.batch_size, case.head_size) == (3, 1, 1, 1)
    case = smallest(lambda case: case.batch_size >= 2 and case.dtype == "float16")
    assert case == Case(batch_size=2, dtype="float16")


# --- steps -----------------------------------------------------------------------------------------------------------


@given(cases(steps="etf"))
def test_steps_are_drawn_from_the_letters_that_are_given(case: Case) -> None:
    assert set(case.steps) <= set("etf")
    assert len(case.steps) <= 14


@given(cases())
def test_where_no_letters_are_given_there_are_no_steps(case: Case) -> None:
    assert case.steps == ""


def test_steps_shrink_to_those_that_matter() -> None:
    case = smallest(lambda case: "t" in case.steps and "e" in case.steps[case.steps.index("t") :], steps="etf")
    assert case == Case(steps="te")


def test_long_words_come_as_often_as_short_ones() -> None:
    drawn: list[int] = []

    draw_cases(cases(steps="etfnia"), 100, 0, lambda case: drawn.append(len(case.steps)))
    assert sum(size >= 7 for size in drawn) > len(drawn) / 4
    assert sum(size <= 3 for size in drawn) > len(drawn) / 10


def test_a_simpler_case_has_one_of_its_letters_less() -> None:
    case = Case(steps="tef")
    assert [c.steps for c in simpler(case)] == ["ef", "tf", "te"]
    assert all(c == case.but(steps=c.steps) for c in simpler(case))
    assert list(simpler(Case())) == []


@given(cases(steps="etf", train_rates=(0.0, 0.5)))
def test_a_simpler_case_keeps_its_steps_or_drops_one(case: Case) -> None:
    for other in simpler(case):
        kept = other.steps == case.steps
        assert kept or other in [
            case.but(steps=case.steps[:at] + case.steps[at + 1 :]) for at in range(len(case.steps))
        ]


@given(cases(max_seq_len=300, max_chunks=4))
def test_a_head_is_wide_enough_for_the_mask_to_be_read_in_few_runs(case: Case) -> None:
    assert case.seq_len <= 4 * case.head_size
