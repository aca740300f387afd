"""Right pairs of other kinds than the shipped one are equivalent, and their runs are sensitive."""

from one_projection import OneProjection, OneProjectionFused, fused, spelled_out

import equivcheck


def test_a_right_function_is_equivalent() -> None:
    equivcheck.assert_equivalent(spelled_out, fused, device="cpu", profile="quick")


def test_a_right_module_with_one_projection_is_equivalent() -> None:
    report = equivcheck.assert_equivalent(OneProjection, OneProjectionFused, device="cpu", profile="quick")
    assert "tokens-past-1024-off" in report.sensitivity.planted  # its long sequences are judged whole
