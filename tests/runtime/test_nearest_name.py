"""The nearest name to a misspelt one, or none if nothing is like it."""

import pytest

from equivcheck.runtime.nearest_name import did_you_mean, nearest_name

NAMES = ("output", "gradients", "replacement.hooks", "replacement", "drop-in", "min_profile")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("outputs", "output"),
        ("Gradient", "gradients"),
        ("hooks", "replacement.hooks"),
        ("replacment", "replacement"),
        ("drop_in", "drop-in"),
        ("min-profile", "min_profile"),
        ("zebra", None),
        ("", None),
        (7, None),
    ],
)
def test_a_misspelt_name_has_the_nearest(word: object, name: str | None) -> None:
    assert nearest_name(word, NAMES) == name


def test_a_suggestion_is_the_end_of_a_sentence_or_nothing() -> None:
    assert did_you_mean("outptu", NAMES) == " (did you mean 'output'?)"
    assert did_you_mean("zebra", NAMES) == ""
    assert did_you_mean("output", ()) == ""
