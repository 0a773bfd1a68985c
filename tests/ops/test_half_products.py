"""Products of half precision with float32 results, and dropout that waits for no device: on fake GPU tensors."""

import pytest
import torch
from test_dcmha import arguments as composed_arguments
from test_reattention import arguments as reattention_arguments
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from crosshead.ops import half_products
from crosshead.ops.dcmha import composed_attention
from crosshead.ops.reattention import reattention
from crosshead.ops.talking import chunked
from tolerances import GRADIENT, OUTPUT, assert_close

HALF = torch.bfloat16


class Recorded(TorchDispatchMode):
    """What operations were called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def on_fake_gpu(operands, dtype=HALF):
    return [None if x is None else torch.empty(x.shape, dtype=dtype, device="cuda") for x in operands]


def test_half_products_equal_those_of_float64(monkeypatch):
    """A CPU has no such product; float32's stands in for it."""
    monkeypatch.setattr(half_products, "_summed_in_float32", lambda a, b: a.float() @ b.float())
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, generator=generator).to(HALF) for size in ((2, 3, 7, 5), (2, 3, 5, 11)))
    upstream = torch.randn(2, 3, 7, 11, generator=generator)
    found = []
    for product, operands in (
        (half_products._HalfProduct.apply, (a, b)),
        (torch.matmul, (a.double(), b.double())),
    ):
        operands = [x.clone().requires_grad_() for x in operands]
        out = product(*operands)
        found.append((out, torch.autograd.grad(out, operands, upstream.to(out.dtype))))
    (out, grads), (want, wants) = found
    monkeypatch.setattr(half_products, "sums_half_in_float32", lambda device: True)
    for scale in (0.25, 0.3):  # multiplied into the operand, and into the product
        assert_close(half_products.precise_product(a, b, scale), scale * want, OUTPUT[torch.float32])
    assert out.dtype == torch.float32
    assert_close(out, want, OUTPUT[torch.float32])
    for grad, wanted in zip(grads, wants, strict=True):
        assert grad.dtype == HALF
        assert_close(grad, wanted, GRADIENT[HALF])


@pytest.mark.parametrize(
    ("operator", "operands", "products"),
    [
        # Logits as rows of queries and of keys, and two products with V.
        (composed_attention, composed_arguments((2, 3, 9, 8, 8, 6, 2)), 4),
        # The maps for the statistics, the maps that attend, and the product with V.
        (reattention, reattention_arguments((2, 3, 9, 8)), 3),
    ],
)
def test_on_a_gpu_products_over_channels_are_of_half_precision(operator, operands, products):
    with FakeTensorMode(), Recorded() as recorded, torch.no_grad():
        operator(*on_fake_gpu(operands))
    assert recorded.names.count("aten.bmm.dtype") == products


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_dropout_asks_a_gpu_for_no_number(dtype):
    """A fake tensor has no number to give: a seed that is read on the host would raise."""
    q = torch.empty(2, 3, 9, 8)
    mixing = [torch.empty(3, 3), torch.empty(3, 3), torch.empty(3)]
    with FakeTensorMode(), Recorded() as recorded, torch.no_grad():
        composed_attention(*on_fake_gpu(composed_arguments((2, 3, 9, 8, 8, 6, 2)), dtype), dropout_p=0.1)
        reattention(*on_fake_gpu(reattention_arguments((2, 3, 9, 8)), dtype), dropout_p=0.1)
        operands, seed = (
            on_fake_gpu([q, q, q, *mixing], dtype),
            torch.empty((), dtype=torch.int64, device="cuda"),
        )
        # What the operators do where tensors are no fakes.
        out = chunked._forward._init_fn(*operands, 0.3, 0.1, seed)
        chunked._backward._init_fn(out, *operands, 0.3, 0.1, seed)
    assert recorded.names.count("crosshead.dropout_factors.default") == 5
    assert not {"aten._local_scalar_dense.default", "aten.item.default"} & set(recorded.names)
