"""Which path an operator takes on which device, read off without the device."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

import crosshead.models  # noqa: F401 - registers the models
from crosshead import swap_attention
from crosshead.ops import sdpa
from crosshead.ops.interactive.landmarks import pooling_matrix
from crosshead.ops.paths import (
    Conditions,
    interactive_kernel_obstacles,
    interactive_path,
    overlap_kernel_obstacles,
    padding,
    products_obstacles,
    sdpa_kernel,
    talking_kernel_obstacles,
    talking_path,
    window_products_obstacles,
)

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
cpu, cuda = partial(Conditions, "cpu"), partial(Conditions, "cuda")


@pytest.mark.parametrize(
    ("given", "width", "columns"),
    [
        (cuda(BF16), 28, 4),
        (cuda(F16), 38, 2),
        (cuda(BF16), 64, 0),
        (cuda(F32), 18, 2),
        (cuda(F32), 28, 0),
        (cuda(F64), 27, 0),
        (cuda(BF16, compiling=True), 30, 2),
        (cpu(F32), 38, 2),
        (cpu(F32), 28, 0),
        (cpu(F32, compiling=True), 38, 0),
        (Conditions("mps", F32), 38, 0),
    ],
)
def test_widths_are_rounded_to_what_a_device_reads_at_once(given, width, columns):
    assert padding(given, width) == columns


@pytest.mark.parametrize(
    ("given", "width", "mask", "aligned", "kernel"),
    [
        (cuda(BF16), 32, "none", True, "cudnn or flash"),
        (cuda(F16), 32, "causal", True, "cudnn or flash"),
        (cuda(BF16), 28, "none", False, "flash"),
        (cuda(BF16), 32, "given", True, "efficient"),
        (cuda(BF16), 28, "given", True, "math"),
        (cuda(BF16), 24, "none", False, "none: misaligned"),
        (cuda(F32), 20, "none", True, "efficient"),
        (cuda(F32), 18, "none", True, "math"),
        (cuda(F32), 20, "given", False, "none: misaligned"),
        (cuda(F64), 32, "none", True, "math"),
        (cuda(BF16), 320, "none", True, "efficient"),
        (cpu(BF16), 28, "given", False, "cpu"),
    ],
)
def test_what_pytorch_makes_of_a_call(given, width, mask, aligned, kernel):
    assert sdpa_kernel(given, width, mask, aligned=aligned) == kernel


@pytest.mark.parametrize(
    ("given", "heads", "head_dim", "dropout_p", "path"),
    [
        (cpu(F32), 4, 48, 0.0, "chunked"),
        (cpu(F32, exporting=True), 4, 48, 0.0, "full_width"),
        (cuda(BF16), 4, 48, 0.0, "full_width"),
        (cuda(BF16), 12, 32, 0.0, "chunked"),
        (cuda(BF16), 4, 48, 0.1, "chunked"),
        (cuda(F32), 4, 48, 0.0, "chunked"),
    ],
)
def test_talking_heads(given, heads, head_dim, dropout_p, path):
    assert talking_path(given, heads, head_dim, dropout_p) == path


def test_fused_overlapped_heads():
    assert not overlap_kernel_obstacles(cuda(BF16), 32, 8, 65_535, 49)
    (said,) = overlap_kernel_obstacles(cuda(BF16), 32, 8, 65_536, 49)
    assert said == "expected at most 65535 images or windows, got 65536"
    assert len(overlap_kernel_obstacles(cuda(F32), 120, 8, 2, 50_000)) == 3


def test_fused_talking_heads():
    assert not talking_kernel_obstacles(cuda(BF16), 12, 32, 197)
    assert not talking_kernel_obstacles(cuda(F16), 1, 64, 197)
    assert not talking_kernel_obstacles(cuda(BF16), 8, 48, 197, 0.1)
    for given, *sizes in (
        (cuda(BF16), 12, 16, 197, 0.1),
        (cuda(BF16), 12, 48, 197),  # 16 heads of 64 in a tile
        (cuda(BF16), 17, 16, 197),
        (cuda(BF16), 4, 48, 50_000),
        (cuda(F32), 4, 48, 197),
        (cpu(BF16), 4, 48, 197),
        (cuda(BF16, has_triton=False), 4, 48, 197),
    ):
        assert len(talking_kernel_obstacles(given, *sizes)) == 1


def test_explicit_products_serve_a_cpu_alone():
    assert not products_obstacles(cpu(BF16), 0.0)
    assert not window_products_obstacles(cpu(F32), 0.0)
    assert products_obstacles(cpu(BF16, native_bfloat16=False), 0.0)
    for given in (cuda(BF16), cpu(BF16, compiling=True)):
        assert products_obstacles(given, 0.0) and window_products_obstacles(given, 0.0)


@pytest.fixture
def kernels(monkeypatch):
    """The kernels that PyTorch would take on a GPU for what is handed to it, of fake tensors there."""
    found = []

    def record(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **_):
        mask = "given" if attn_mask is not None else "causal" if is_causal else "none"
        conditions, at_once = Conditions.of(q), 16 // q.element_size()
        for x in (q, k, v):
            aligned = all(s % at_once == 0 for s in (*x.stride()[:-1], x.storage_offset()))
            found.append(sdpa_kernel(conditions, x.shape[-1], mask, aligned=aligned))
        return torch.empty_like(q, memory_format=torch.contiguous_format)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    monkeypatch.setattr(sdpa, "cudnn_reads_overlapping_views", lambda device: False)
    return found


MODELS = {
    "vit": ("plain_vit_tiny_patch16_224", dict(depth=12, img_size=64)),
    "swin": ("plain_swin_tiny_patch4_window7_224", dict(depths=(2, 2, 2, 2), img_size=112)),
    "rotary": ("eva02_tiny_patch14_224", dict(depth=3, img_size=56)),
}


@pytest.mark.parametrize("dtype", [pytest.param(F32, marks=pytest.mark.soak), BF16])
@pytest.mark.parametrize("name", MODELS)
def test_no_block_ends_in_the_kernel_that_keeps_all_weights(name, dtype, kernels):
    """Whatever the overlap: with a bias and masks (Swin), rotated (EVA), with class tokens."""
    name, options = MODELS[name]
    size = options["img_size"]
    for overlap in ("index", 7):
        model = timm.create_model(name, **options).eval()
        swap_attention(model, "overlap", overlap=overlap)
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            model.to("cuda", dtype)(torch.empty(2, 3, size, size, device="cuda", dtype=dtype))
    assert kernels and set(kernels) <= {"flash", "cudnn or flash", "efficient"}


def test_windows_beyond_what_a_gpu_takes_go_in_parts(monkeypatch):
    monkeypatch.setattr(sdpa, "MAX_IMAGES", 4)
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 10, 2, 5, 8, generator=generator)
    for mask in (None, torch.randn(5, 5, generator=generator), torch.randn(10, 2, 5, 5, generator=generator)):
        got = sdpa._in_parts(F.scaled_dot_product_attention, q, k, v, mask)
        assert torch.equal(got, F.scaled_dot_product_attention(q, k, v, mask))


def test_only_misaligned_rows_are_copied():
    x = torch.zeros(2, 5, 3, 4, 20)
    heads = x[:, :, 0].transpose(1, 2)
    assert sdpa.aligned(heads) is heads  # 20 float32 numbers: 80 bytes
    half = heads.bfloat16()[..., 2:18]  # 16 wide, 20 apart, and beginning at the fourth byte
    copied = sdpa.aligned(half)
    assert copied is not half and torch.equal(copied, half) and copied.is_contiguous()
    odd = half[..., :15]
    assert sdpa.aligned(odd) is odd  # PyTorch copies these itself


@pytest.mark.parametrize(
    ("given", "shape", "differentiable", "path"),
    [
        (cuda(BF16), (2, 4, 196, 32), True, "triton"),
        (cuda(F32), (2, 4, 196, 32), True, "stored"),
        (cuda(BF16), (2, 4, 196, 96), True, "stored"),
        (cuda(BF16, has_triton=False), (2, 4, 196, 32), True, "stored"),
        (cpu(F32), (2, 4, 196, 32), True, "stored"),
        (cpu(F32), (64, 8, 3136, 32), True, "recompute"),
        (cpu(F32), (4, 4, 3136, 32), False, "recompute"),
        (cpu(BF16), (4, 4, 3136, 32), False, "stored"),
        (cpu(F32, compiling=True), (64, 8, 3136, 32), True, "stored"),
    ],
)
def test_interactive_heads(given, shape, differentiable, path):
    assert interactive_path(given, shape, 49, 0.0, differentiable=differentiable) == path


def test_the_fused_kernels_refuse_what_would_leave_the_registers():
    assert interactive_kernel_obstacles(cuda(F32), 4, 32, 49, 0.0) == [
        "expected float16 or bfloat16, got torch.float32"
    ]
    assert not interactive_kernel_obstacles(cpu(F32), 4, 32, 49, 0.0, interpreted=True)


def test_a_pooling_matrix_that_is_kept_serves_with_and_without_gradients():
    like = torch.zeros((), dtype=F64)
    with torch.inference_mode():
        first = pooling_matrix(13, 5, like)
    assert pooling_matrix(13, 5, like) is first
    x = torch.zeros(13, 1, dtype=F64, requires_grad=True)
    (first @ x).sum().backward()
    with FakeTensorMode():
        fake = pooling_matrix(13, 5, torch.empty((), dtype=F64))
    assert fake is not first and pooling_matrix(13, 5, like) is first
