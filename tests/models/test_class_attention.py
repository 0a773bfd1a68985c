"""The class blocks of the authors' CaiT, against timm's own modules and the equations."""

import pytest
import torch
from timm.models.cait import ClassAttn, TalkingHeadAttn
from torch import nn

from crosshead.models.class_attention import (
    TalkingClassAttention,
    TalkingClassBlock,
    talking_heads_without_bias,
)
from crosshead.ops.talking.naive import naive_talking_heads_attention
from packed import of_packed
from tolerances import GRADIENT, OUTPUT, assert_close

F64 = torch.float64


def attention(dim, heads, **options):
    torch.manual_seed(0)
    return TalkingClassAttention(dim, heads, dtype=F64, **options)


def tokens(*shape):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("batch", "count", "dim", "heads"), [(2, 7, 12, 3), (1, 1, 5, 1), (0, 4, 8, 2)])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_it_is_the_class_tokens_row_of_talking_heads(batch, count, dim, heads, qkv_bias):
    """Against the oracle of talking heads, which computes every token's row: output and every gradient."""
    attn, x = attention(dim, heads, qkv_bias=qkv_bias), tokens(batch, count, dim)
    upstream = tokens(batch, 1, dim)
    results = []
    for compute in (attn, lambda x: attn.proj(_oracle(attn, x)[:, :1])):
        attn.zero_grad()
        x = x.detach().requires_grad_()
        y = compute(x)
        y.backward(upstream)
        results.append((y, {"x": x.grad} | {n: p.grad for n, p in attn.named_parameters()}))
    (got, got_grads), (want, want_grads) = results
    assert_close(got, want, OUTPUT[F64])
    for name, grad in want_grads.items():
        if name == "k.bias":  # the softmax cancels it
            assert grad.abs().max() < 1e-12 and got_grads[name].abs().max() < 1e-12
            continue
        assert_close(got_grads[name], grad, GRADIENT[F64], name)


def _oracle(attn, x):
    qkv = torch.stack([layer(x).unflatten(-1, (attn.num_heads, -1)) for layer in (attn.q, attn.k, attn.v)], 2)
    return of_packed(naive_talking_heads_attention)(qkv, attn.proj_l.weight, None, attn.proj_w.weight, None)


def test_heads_that_keep_to_themselves_are_timms():
    attn, x = attention(12, 3), tokens(2, 6, 12)
    for mixing in (attn.proj_l, attn.proj_w):
        nn.init.eye_(mixing.weight)
    timms = ClassAttn(12, 3, dtype=F64)
    timms.load_state_dict(attn.state_dict(), strict=False)
    assert_close(attn(x), timms(x), OUTPUT[F64])


def test_gradients():
    attn = attention(6, 2)
    assert torch.autograd.gradcheck(attn, tokens(2, 3, 6).requires_grad_())


def test_weights_are_those_of_the_forward_pass():
    attn, x = attention(12, 3), tokens(2, 6, 12)
    weights = attn.attention_weights(x)
    assert weights.shape == (2, 3, 1, 6)
    values = attn.v(x).unflatten(-1, (3, 4)).transpose(1, 2)
    assert_close(attn.proj((weights @ values).transpose(1, 2).flatten(2)), attn(x), OUTPUT[F64])


def test_dropout_falls_on_the_mixed_weights_in_training_only():
    attn, x = attention(12, 3, attn_drop=0.5), tokens(2, 6, 12)
    assert not torch.equal(attn(x), attn(x))
    attn.eval()
    assert torch.equal(attn(x), attn(x))


def test_a_block_normalises_the_class_token_alone():
    torch.manual_seed(0)
    block = TalkingClassBlock(12, 3, attn_block=TalkingClassAttention, init_values=0.5, dtype=F64)
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
    patches, token = tokens(2, 6, 12), tokens(2, 1, 12)
    after = token + 0.5 * block.attn(torch.cat((block.norm1(token), patches), 1))
    want = after + 0.5 * block.mlp(block.norm2(after))
    assert_close(block(patches, token), want, OUTPUT[F64])
    # A norm of the patches would hide their scale.
    assert not torch.allclose(block(2 * patches, token), want)


def test_patch_blocks_without_bias():
    attn = talking_heads_without_bias(12, 3, qkv_bias=True)
    assert type(attn) is TalkingHeadAttn  # which a swap knows
    assert attn.proj_l.bias is None and attn.proj_w.bias is None and attn.qkv.bias is not None
