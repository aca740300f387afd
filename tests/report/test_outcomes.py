"""Outcomes of cases, put together for a report."""

from equivcheck.report.outcomes import CaseOutcome, Searched, kernels_by_dtype


def test_kernels_are_the_data_of_the_check_of_them_by_dtype() -> None:
    backend = Searched()
    for number, (dtype, kernels) in enumerate([("float32", "efficient"), *[("bfloat16", "flash at 32, cudnn")] * 3]):
        backend.add(CaseOutcome.of(CaseOutcome(f"case {number}", data={dtype: kernels}).plain()))
    backend.add(CaseOutcome("case 4", notes=("float16: math",)))
    found = kernels_by_dtype(backend)
    assert list(found.items()) == [("bfloat16", "flash at 32, cudnn"), ("float32", "efficient")]  # of most cases first
    assert kernels_by_dtype(None) == {}
