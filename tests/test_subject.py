"""The pair: found from objects and import strings, its kind found out, and every bad input told in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.cases.case import ALIGNED_BYTES, Case, arrange
from equivcheck.cases.words import LAYOUTS
from equivcheck.errors import UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.loading import load, name_of
from equivcheck.pairs.resolve import KINDS, resolve
from equivcheck.pairs.to_device import to_device
from equivcheck.runtime.device import find_device

CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, n_layer=1, vocab_size=11)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def refusal(reference: Any, candidate: Any = FlashCausalSelfAttention, kind: str = "auto", device: str = "cpu") -> str:
    with pytest.raises(UsageError) as refused:
        resolve(reference, candidate, kind=kind, device=device)
    told = str(refused.value)
    assert "\n" not in told
    return told


# --- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        (CausalSelfAttention, FlashCausalSelfAttention, "module"),
        (lambda config: CausalSelfAttention(config), lambda config: FlashCausalSelfAttention(config), "module"),
        (attend, F.scaled_dot_product_attention, "function"),
        (GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), "model"),
        (GPT, GPT, "model"),
        (GPT, replace_attention_with_flash_attention, "replacement"),
        (GPT, lambda m: replace_attention_with_flash_attention(m), "replacement"),
    ],
)
def test_the_kind_of_a_pair_is_found(reference: Any, candidate: Any, kind: str) -> None:
    assert resolve(reference, candidate, kind="auto", device="cpu").kind == kind
    assert resolve(reference, candidate, kind=kind, device="cpu").kind == kind


def test_finding_the_kind_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    resolve(GPT, replace_attention_with_flash_attention, kind="auto", device="cpu")
    resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_may_return_its_logits_alone() -> None:
    class Logits(GPT):
        def forward(self, idx: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(idx)[0]

    subject = resolve(Logits, GPT, kind="auto", device="cpu")
    assert subject.kind == "model"
    truth = subject.problem(CASE).oracle_values(gradients=False)
    logits = truth["logits"]
    targets = subject.problem(CASE).inputs[1]
    torch.testing.assert_close(truth["loss"], F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize("wrong", ["layer", "", "Module"])
def test_an_unknown_kind_is_refused_with_those_allowed(wrong: str) -> None:
    told = refusal(CausalSelfAttention, kind=wrong)
    assert repr(wrong) in told
    assert all(kind in told for kind in KINDS)


def test_a_kind_that_the_pair_is_not_is_refused() -> None:
    assert "looks like a module" in refusal(CausalSelfAttention, kind="model")


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        (lambda: None, "takes no argument, and is called with a config"),
        (nn.Linear(3, 3), "is an instance of Linear: give the class itself, or a factory f(config)"),
        (lambda config: 3, "it returned int"),
        (lambda config: nn.Linear(3, 3), "on module input it raised RuntimeError"),
        (lambda config: nn.Flatten(), "on model input it returned (2, 3)"),
        (lambda q, k, v: q, "is a function of q, k, v, and"),
        (lambda q, k, v, window: q, "needs 'window', which is not known"),
        (3, "cannot be called"),
    ],
)
def test_a_pair_whose_signature_fits_no_kind_is_refused_with_what_was_tried(reference: Any, named: str) -> None:
    assert named in refusal(reference, attend if "window" in named else FlashCausalSelfAttention)


def test_a_candidate_that_is_an_instance_is_refused_rather_than_judged() -> None:
    with pytest.raises(UsageError, match="is an instance of Identity: give the class itself"):
        resolve(CausalSelfAttention, nn.Identity(), kind="auto", device="cpu")


# --- import strings --------------------------------------------------------------------------------------------------


def test_an_object_is_found_in_a_module_and_in_a_file(tmp_path: Path) -> None:
    assert load("equivcheck.attention:CausalSelfAttention") is CausalSelfAttention
    assert load("equivcheck.attention:CausalSelfAttention.forward") is CausalSelfAttention.forward
    file = tmp_path / "mine.py"
    file.write_text("from equivcheck.attention import CausalSelfAttention as Mine\nimport neighbour_of_mine\n")
    (tmp_path / "neighbour_of_mine.py").write_text("")
    assert load(f"{file}:Mine") is CausalSelfAttention
    assert load(f"{file}:neighbour_of_mine") is load(f"{file}:neighbour_of_mine")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("equivcheck.attention", "with a colon before the name"),
        (":Attention", "with a colon before the name"),
        ("equivcheck.attention:", "with a colon before the name"),
        ("no_such_package:Attention", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("equivcheck.no_such_module:Attention", "ModuleNotFoundError"),
        ("equivcheck.attention:NoSuch", "CausalSelfAttention, FlashCausalSelfAttention"),
        ("no/such/file.py:Attention", "there is no file"),
    ],
)
def test_an_import_that_fails_is_told_with_its_own_error(spec: str, named: str) -> None:
    assert named in refusal(spec)
    assert named in refusal(CausalSelfAttention, spec)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("def f(:\n", "SyntaxError"),
        ("raise ValueError('on\\ntwo lines')\n", "ValueError: on two lines"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("import no_such_neighbour\n", "no_such_neighbour"),
        ("x = 1\n", "it has nothing to call"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_with_its_own_error(tmp_path: Path, source: str, named: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    assert named in refusal(f"{file}:Attention")
    assert named in refusal(f"{file}:Attention")  # the second time as the first: nothing half-made is kept


def test_control_c_during_an_import_is_no_bad_input(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(f"{tmp_path / 'slow.py'}:Attention")


def test_names_are_import_strings_where_there_are_any() -> None:
    assert name_of(CausalSelfAttention) == "equivcheck.attention:CausalSelfAttention"
    assert name_of("pkg.slow:Attention") == "pkg.slow:Attention"
    assert "lambda" in name_of(lambda config: config)


# --- devices ---------------------------------------------------------------------------------------------------------


def test_devices_are_found() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("wrong", ["gpu", "meta", "mps", "", "cuda:x"])
def test_an_unknown_device_is_refused_with_those_allowed(wrong: str) -> None:
    assert "auto, cpu, cuda and cuda:N" in refusal(CausalSelfAttention, device=wrong)


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA GPU" in refusal(CausalSelfAttention, device="cuda")
    assert "sees no CUDA GPU" in refusal(CausalSelfAttention, device="cuda:1")


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert "use cuda:0 to cuda:1" in refusal(CausalSelfAttention, device="cuda:2")
    assert find_device("cuda") == find_device("auto") == torch.device("cuda", 1)


# --- what is built ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_reference_and_candidate_hold_the_same_weights_in_the_dtype_and_mode_of_the_case(dtype: str) -> None:
    problem = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu").problem(
        CASE.but(dtype=dtype, training=True)
    )
    assert type(problem.candidate) is FlashCausalSelfAttention
    for name, parameter in problem.reference.named_parameters():
        assert parameter.dtype is getattr(torch, dtype)
        assert torch.equal(parameter, problem.candidate.get_parameter(name))
    assert problem.reference.training
    assert problem.candidate.training


def test_a_replacement_is_made_of_a_model_of_its_own() -> None:
    problem = resolve(GPT, replace_attention_with_flash_attention, kind="auto", device="cpu").problem(CASE)
    assert type(problem.reference.blocks[0].attn) is CausalSelfAttention  # type: ignore[union-attr,index]
    assert type(problem.candidate.blocks[0].attn) is FlashCausalSelfAttention  # type: ignore[union-attr,index]
    assert torch.equal(problem.reference.head.weight, problem.candidate.head.weight)  # type: ignore[union-attr,arg-type]


def test_a_replacement_that_returns_no_model_raises_when_it_is_built() -> None:
    problem = resolve(GPT, lambda model: None, kind="replacement", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match="returned NoneType instead of the model"):
        _ = problem.candidate


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_have_the_layout_of_the_case(layout: str) -> None:
    for pair in ((CausalSelfAttention, FlashCausalSelfAttention), (attend, attend)):
        problem = resolve(*pair, kind="auto", device="cpu").problem(CASE.but(layout=layout))
        for x in problem.inputs:
            assert x.is_contiguous() == (layout in ("contiguous", "offset"))


def test_a_function_is_asked_with_the_scale_and_the_rate_of_the_case() -> None:
    asked: list[dict[str, Any]] = []

    def listening(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        asked.append(options)
        return attend(q, k, v, **options)

    subject = resolve(listening, attend, kind="auto", device="cpu")
    asked.clear()  # it was tried out
    for case in (CASE, CASE.but(training=True, attn_pdrop=0.5, scale=0.25, is_causal=False)):
        problem = subject.problem(case)
        problem.run(problem.reference, problem.inputs, gradients=True)
    assert asked == [
        {"is_causal": True, "dropout_p": 0.0, "scale": 0.5},
        {"is_causal": False, "dropout_p": 0.5, "scale": 0.25},
    ]


def test_a_run_gives_outputs_and_gradients_by_name_and_leaves_no_gradient_behind() -> None:
    problem = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu").problem(CASE)
    found = problem.run(problem.reference, problem.inputs, gradients=True)
    assert {"output", "grad x", "grad key.weight", "grad proj.bias"} <= set(found)
    assert all(p.grad is None for p in problem.reference.parameters())
    assert set(problem.run(problem.reference, problem.inputs, gradients=False)) == {"output"}


def test_every_run_draws_the_same_dropout() -> None:
    case = CASE.but(training=True, attn_pdrop=0.5, resid_pdrop=0.5)
    problem = resolve(CausalSelfAttention, CausalSelfAttention, kind="auto", device="cpu").problem(case)
    state = torch.get_rng_state()
    one = problem.run(problem.reference, problem.inputs, gradients=False)["output"]
    torch.rand(3)
    other = problem.run(problem.candidate, problem.inputs, gradients=False)["output"]
    assert torch.equal(one, other)  # type: ignore[arg-type]
    torch.set_rng_state(state)
    problem.run(problem.reference, problem.inputs, gradients=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("returned", [None, {"y": 1}, ()])
def test_a_forward_pass_that_returns_no_tensor_raises_what_it_returned(returned: Any) -> None:
    class Other(CausalSelfAttention):
        def forward(self, x: Tensor) -> Any:
            return returned

    problem = resolve(CausalSelfAttention, Other, kind="module", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match=type(returned).__name__):
        problem.run(problem.candidate, problem.inputs, gradients=False)


def test_a_model_that_returns_no_logits_raises_what_it_returned() -> None:
    class Other(GPT):
        def forward(self, idx: Tensor) -> Any:  # type: ignore[override]
            return None

    problem = resolve(GPT, Other, kind="model", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match="NoneType instead of logits"):
        problem.run(problem.candidate, problem.inputs, gradients=False)


def test_on_the_cpu_the_oracle_is_where_the_pair_is() -> None:
    pair = ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")
    subject = resolve(*pair, kind="auto", device="cpu")
    assert subject.with_oracle_beside() is subject
    problem = subject.problem(CASE)
    assert problem.judged_on == problem.device == torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_goes_to_a_gpu_keeps_its_layout_and_begins_where_its_kernels_take_for_granted(dtype: torch.dtype) -> None:
    meta = torch.device("meta")  # a device that is not the CPU, as a GPU is
    x = arrange(torch.randn(2, 3, 5, 8).to(dtype), "offset")
    assert x.storage_offset() * x.element_size() % ALIGNED_BYTES
    for moved in (to_device(x, meta), arrange(x.to(meta), "offset")):
        assert moved.shape == x.shape
        assert moved.stride() == x.stride()
        assert moved.storage_offset() > 0
        assert moved.storage_offset() * moved.element_size() % ALIGNED_BYTES == 0
    plain = to_device(arrange(torch.randn(2, 3, 5, 8), "transposed"), meta)
    assert plain.stride() == arrange(torch.randn(2, 3, 5, 8), "transposed").stride()
