"""A replacement is held property by property: each defect has a check that names it, and a right one has none."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from published_replacement import replace_by_new_modules
from torch import Tensor, nn

import equivcheck
from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.plan import select_checks
from equivcheck.errors import Mismatch
from equivcheck.faults import REPLACEMENTS
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime.patch_guard import classes_restored

PROPERTIES = {check.name: check for check in CHECKS if check.name.startswith("replacement.")}
CASE = Case(
    batch_size=2,
    seq_len=7,
    n_head=2,
    head_size=4,
    block_size=9,
    seed=1,
    n_layer=2,
    vocab_size=5,
    attn_pdrop=0.1,
    resid_pdrop=0.1,
)


class Obedient(CausalSelfAttention):
    """A fused attention that obeys its mask, its rates and their modes."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        T = x.size(1)
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask[0, 0, :T, :T] != 0, dropout_p=rate)
        return self._merge(y)


def in_place(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if type(module) is CausalSelfAttention:
            module.__class__ = Obedient
    return model


def by_new_objects(model: nn.Module) -> nn.Module:
    """New attentions that take over all that the old ones have."""
    made: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is CausalSelfAttention:
                new = made.setdefault(id(child), Obedient.__new__(Obedient))
                vars(new).update(vars(child))
                setattr(parent, name, new)
    return model


def subject(replace: Any) -> Pair:
    return resolve(GPT, replace, kind="replacement", device="cpu")


def findings(replace: Any) -> dict[str, str]:
    found = {}
    for name, check in PROPERTIES.items():
        try:
            check.run(subject(replace), CASE)
        except Mismatch as mismatch:
            found[name.partition(".")[2]] = str(mismatch)
    return found


def test_a_right_replacement_has_no_finding() -> None:
    assert findings(in_place) == {}


def test_new_objects_that_take_over_everything_are_only_missed_as_a_root() -> None:
    assert list(findings(by_new_objects)) == ["root"]


@pytest.mark.parametrize("fault", REPLACEMENTS, ids=lambda fault: fault.name)
def test_each_defect_of_a_replacement_is_seen_by_its_property(fault: Any) -> None:
    for name in fault.seen_by:
        with pytest.raises(Mismatch) as seen:
            PROPERTIES[name].run(subject(fault.put_around(in_place, "replacement")), CASE)
        assert len(str(seen.value).splitlines()) <= 10


def test_every_property_has_a_fault_that_is_planted_for_it() -> None:
    assert {fault.seen_by[0] for fault in REPLACEMENTS} == set(PROPERTIES)


def test_the_published_replacement_has_at_least_eight_findings_by_name() -> None:
    found = findings(replace_by_new_modules)
    assert {"modes", "dtypes", "frozen", "parameters", "hooks", "rates", "shared", "blocks", "masks", "ties"} <= set(
        found
    )
    assert "blocks.0.attn" in found["modes"]
    assert "16 of 37 Parameters are other objects" in found["parameters"]
    assert found["blocks"] == "blocks.1.attn.n_head is 2 after replacing, and 1 before"


def test_the_published_replacements_findings_have_cases_and_replays() -> None:
    report = equivcheck.verify(
        GPT, replace_by_new_modules, kind="replacement", checks=["replacement"], profile="quick", device="cpu"
    )
    different = [result for result in report.results if result.outcome == "different"]
    assert len(different) >= 8
    assert not report.equivalent
    for result in different:
        assert result.counterexample is not None
        assert Case.parse(result.counterexample.case).n_layer == 2
        assert f"--check {result.name}" in result.counterexample.replay
        assert len(result.counterexample.message.splitlines()) <= 10
    assert report.sensitivity.survived == ()


def test_a_family_of_checks_is_chosen_and_excluded_by_its_name() -> None:
    assert [check.name for check in select_checks(["replacement"], (), "replacement")] == list(PROPERTIES)
    left = select_checks(None, ["replacement"], "replacement")
    assert left
    assert not any(check.name in PROPERTIES for check in left)


def test_a_replacement_that_does_nothing_is_noted() -> None:
    held = PROPERTIES["replacement.layers"].run(subject(lambda model: model), CASE)
    assert held.notes == ("nothing was replaced, the model is as it was",)
    assert not held.judged


def test_a_class_patched_for_everyone_is_named_and_put_back() -> None:
    forward = CausalSelfAttention.forward

    def patching(model: nn.Module) -> nn.Module:
        CausalSelfAttention.forward = Obedient.forward  # type: ignore[method-assign]  # that is the fault
        return model

    with pytest.raises(Mismatch, match=r"changed for everybody: equivcheck\.attention\.CausalSelfAttention\.forward"):
        PROPERTIES["replacement.process"].run(subject(patching), CASE)
    assert CausalSelfAttention.forward is forward
    subject(patching).problem(CASE).candidate  # noqa: B018  # built
    assert CausalSelfAttention.forward is forward


def test_functions_and_new_attributes_are_restored_too() -> None:
    softmax = F.softmax
    with classes_restored(GPT(CASE.config())) as changed:
        F.softmax = torch.sigmoid  # type: ignore[assignment]  # what somebody's monkey patch would do
        CausalSelfAttention.extra = 1  # type: ignore[attr-defined]
    assert F.softmax is softmax
    assert not hasattr(CausalSelfAttention, "extra")
    assert sorted(changed) == ["equivcheck.attention.CausalSelfAttention.extra", "torch.nn.functional.softmax"]
