"""The GPT around the attention: shapes, loss, what it keeps, what it generates and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from equivcheck.attention import FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.gpt import GPT, Block, GPTConfig


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def ids(B: int = 3, T: int = 5) -> torch.Tensor:
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(1))


def test_logits_have_a_row_per_token_and_no_loss_without_targets(model: GPT) -> None:
    logits, loss = model(ids())
    assert logits.shape == (3, 5, 11)
    assert loss is None


def test_the_loss_is_the_mean_cross_entropy(model: GPT) -> None:
    idx, targets = ids(), ids(3, 5).flip(0)
    logits, loss = model(idx, targets)
    by_hand = -F.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).mean()
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_targets_of_minus_one_are_not_counted(model: GPT) -> None:
    idx, targets = ids(), ids()
    targets[:, 2:] = -1
    logits, loss = model(idx, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, :2].reshape(-1, 11), targets[:, :2].reshape(-1)))


def test_targets_may_be_a_slice_that_is_not_contiguous(model: GPT) -> None:
    long = ids(3, 6)
    _, loss = model(long[:, :-1], long[:, 1:])
    torch.testing.assert_close(loss, model(long[:, :-1].contiguous(), long[:, 1:].contiguous())[1])


def test_attentions_are_returned_where_asked_for(model: GPT) -> None:
    _, _, attentions = model(ids(), return_attentions=True)
    assert [a.shape for a in attentions] == [(3, 2, 5, 5)] * 2
    for a in attentions:
        torch.testing.assert_close(a.sum(-1), torch.ones(3, 2, 5))
        assert not bool(a.triu(1).any())


def test_a_fused_attention_returns_none_for_its_attentions(model: GPT) -> None:
    replace_attention_with_flash_attention(model)
    assert model(ids(), return_attentions=True)[2] == [None, None]


def test_the_attention_is_an_argument() -> None:
    model = GPT(
        GPTConfig(vocab_size=5, block_size=4, n_layer=2, n_head=1, n_embd=4), attention=FlashCausalSelfAttention
    )
    assert all(isinstance(block, Block) and type(block.attn) is FlashCausalSelfAttention for block in model.blocks)


def test_later_tokens_do_not_move_earlier_logits(model: GPT) -> None:
    idx = ids()
    other = torch.cat((idx[:, :3], (idx[:, 3:] + 1) % 11), 1)
    assert torch.equal(model(idx)[0][:, :3], model(other)[0][:, :3])


def test_the_head_is_not_tied_to_the_embedding(model: GPT) -> None:
    assert model.head.weight is not model.tok_emb.weight
    assert model.head.bias is None


def test_linear_and_embedding_weights_start_small_and_biases_at_zero() -> None:
    model = GPT(GPTConfig(vocab_size=200, block_size=4, n_layer=1, n_head=1, n_embd=64))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            assert 0.017 < float(module.weight.detach().std()) < 0.023
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            assert not bool(module.bias.any())


def test_generating_greedily_appends_the_likeliest_token_each_time(model: GPT) -> None:
    idx = ids(2, 3)
    longer = model.generate(idx, 4)
    assert longer.shape == (2, 7)
    assert torch.equal(longer[:, :3], idx)
    for end in range(3, 7):
        assert torch.equal(longer[:, end], model(longer[:, :end])[0][:, -1].argmax(-1))


def test_generating_with_one_kept_token_is_greedy(model: GPT) -> None:
    idx = ids(2, 3)
    assert torch.equal(model.generate(idx, 4, do_sample=True, top_k=1), model.generate(idx, 4))


def test_sampling_draws_only_from_the_tokens_kept(model: GPT) -> None:
    idx = ids(1, 3).expand(200, 3)
    kept = set(model(idx[:1])[0][0, -1].topk(3).indices.tolist())
    torch.manual_seed(0)
    drawn = set(model.generate(idx, 1, temperature=5.0, do_sample=True, top_k=3)[:, -1].tolist())
    assert drawn == kept


def test_more_kept_tokens_than_the_vocabulary_has_are_all_of_them(model: GPT) -> None:
    drawn = []
    for options in ({"top_k": 1000}, {}):
        torch.manual_seed(0)
        drawn.append(model.generate(ids(1, 3), 5, do_sample=True, **options))
    assert drawn[0].shape == (1, 8)
    assert torch.equal(*drawn)


def test_generating_goes_on_past_the_block_with_the_last_tokens_as_context(model: GPT) -> None:
    longer = model.generate(ids(2, 6), 6)
    assert longer.shape == (2, 12)
    assert torch.equal(longer[:, 11], model(longer[:, 3:11])[0][:, -1].argmax(-1))


def test_a_sequence_past_the_block_is_refused_with_both_lengths(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"T=9 is longer than block_size=8"):
        model(ids(1, 9))
