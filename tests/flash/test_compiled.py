"""Compiled and exported, the drop-in is one graph that follows modes, rates, shapes and masks."""

from typing import Any

import pytest
import torch
from drop_in import Change, inputs, pair, results, same
from mask_edits import assigned, filled, loaded, loaded_by_assignment, no_keys, per_head

from equivcheck.flash import causal_mask


def test_one_whole_graph_is_compiled_with_the_kernel_in_it(compiled: Any) -> None:
    original, flash = pair()
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    torch.compile(flash, fullgraph=True, backend=backend)(inputs())
    assert len(graphs) == 1
    assert "scaled_dot_product_attention" in graphs[0]
    same(results(compiled(flash), inputs()), results(original, inputs()))


def test_compiled_code_follows_modes_rates_and_shapes(compiled: Any) -> None:
    _, flash = pair()
    fast = compiled(flash)
    for change in (flash.train, lambda: setattr(flash.attn_drop, "p", 0.6), flash.eval):
        change()
        for shape in ((3, 6, 8), (2, 4, 8)):
            torch.manual_seed(1)
            its = flash(inputs(*shape))
            torch.manual_seed(1)
            same(fast(inputs(*shape)), its)


@pytest.mark.parametrize("edit", [no_keys, per_head, filled])
def test_a_mask_edited_before_compiling_is_obeyed_then_and_later(compiled: Any, edit: Change) -> None:
    original, flash = pair(edit)
    fast = compiled(flash)
    same(fast(inputs()), original(inputs()))
    for module in (original, flash):
        module.mask[..., 1, 5] = 1
    same(fast(inputs()), original(inputs()))


@pytest.mark.parametrize("edit", [filled, assigned, loaded, loaded_by_assignment])
def test_compiled_code_refuses_a_mask_that_is_no_longer_causal(compiled: Any, edit: Change) -> None:
    original, flash = pair()
    fast = compiled(flash)
    same(fast(inputs()), original(inputs()))
    flash.load_state_dict(original.state_dict())
    same(fast(inputs()), original(inputs()))
    for module in (original, flash):
        edit(module)
    with pytest.raises(RuntimeError, match=r"edited after .* torch\.compiler\.reset"):
        fast(inputs())
    torch.compiler.reset()
    same(results(fast, inputs()), results(original, inputs()))


def test_compiled_code_looks_at_a_causal_mask_once(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = causal_mask._look
    monkeypatch.setattr(causal_mask, "_look", lambda mask: looks.append(True) or look(mask))
    _, flash = pair()
    fast = compiled(flash)
    for _ in range(3):
        fast(inputs()).sum().backward()
    assert len(looks) == 1


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("edit", [lambda _: None, filled])
def test_an_exported_program_gives_what_the_original_gives(strict: bool, edit: Change) -> None:
    original, flash = pair(edit)
    program = torch.export.export(flash, (inputs(),), strict=strict)
    same(program.module()(inputs()), original(inputs()))
    assert not [node for node in program.graph.nodes if "equivcheck" in str(node.target)]  # it is read elsewhere, too
