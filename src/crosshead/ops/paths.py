"""Which path an operator takes: pure functions of what is known before anything is computed.

They ask no tensor and no device, so that what happens on a GPU can be read, and tested, where there is none
(tests/ops/test_paths.py). What PyTorch's ``scaled_dot_product_attention`` does with a call on a GPU is stated too
(``sdpa_kernel``), from its source at 2.11; ``make gpu`` compares it with what a GPU does.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import Literal

import torch
from torch import Tensor

from .private_torch import has_native_bfloat16

HAS_TRITON = find_spec("triton") is not None  # PyTorch brings it along on Linux
HALF = (torch.float16, torch.bfloat16)

# The widest heads that PyTorch's flash attention takes.
FLASH_WIDTH = 256
# What a kernel of an NVIDIA GPU reads at once; rows that begin elsewhere have no kernel, or are copied.
BYTES_AT_ONCE = 16
# A GPU's grid of programs has no more rows; PyTorch, and the kernels of overlapped heads, give each image one.
MAX_IMAGES = 65_535

Mask = Literal["none", "given", "causal"]
Kernel = Literal["cpu", "flash", "cudnn or flash", "efficient", "math", "none: misaligned"]


@dataclass(frozen=True)
class Conditions:
    """Where a call runs, and under what. ``device`` is a type ("cpu", "cuda")."""

    device: str
    dtype: torch.dtype
    compiling: bool = False
    exporting: bool = False
    native_bfloat16: bool = True
    has_triton: bool = True

    @classmethod
    def of(cls, x: Tensor) -> Conditions:
        compiling, exporting = torch.compiler.is_compiling(), torch.compiler.is_exporting()
        native = compiling or x.device.type != "cpu" or has_native_bfloat16()
        return cls(x.device.type, x.dtype, compiling, exporting, native, HAS_TRITON)


# What PyTorch makes of a call


def sdpa_kernel(given: Conditions, width: int, mask: Mask, *, aligned: bool) -> Kernel:
    """The kernel of ``scaled_dot_product_attention`` on q, k, v of ``width`` channels, on an NVIDIA GPU since sm_80.

    Args:
        mask: ``given`` for a mask or a bias, which flash attention has no form for.
        aligned: whether every row begins at a multiple of 16 bytes.
    """
    if given.device != "cuda":
        return "cpu"
    if given.dtype in HALF and mask != "given" and width <= FLASH_WIDTH:
        if width % 8:
            return "flash"  # of copies that PyTorch makes, each padded to a multiple of 8
        if not aligned:
            return "none: misaligned"
        return "cudnn or flash"
    if given.dtype == torch.float64 or width % _columns_at_once(given.dtype):
        return "math"
    return "efficient" if aligned else "none: misaligned"


def _columns_at_once(dtype: torch.dtype) -> int:
    return max(1, BYTES_AT_ONCE // dtype.itemsize)


def padding(given: Conditions, width: int) -> int:
    """Columns that round overlapped heads' ``width`` up.

    On a GPU to what its kernels read at once: without them a mask or float32 ends in the kernel that writes (N, N), and
    flash attention copies queries, keys and values where views would do. On a CPU to a multiple of 8 where that pays:
    two of them. Measured (benchmarks/overlap.py): 38 to 40 columns save 5 % of a training step's attention; where four
    or six are missing, the copies that the rounding takes cost as much as it saves.
    """
    if given.device == "cuda" and given.dtype != torch.float64:
        return -width % _columns_at_once(given.dtype)
    missing = -width % 8
    return missing if given.device == "cpu" and not given.compiling and missing <= 2 else 0


# Overlapped heads

MAX_OVERLAPPED_WIDTH = 128  # of the fused kernels' tiles
MAX_TOKENS = 46_340  # whose pairs a 32-bit number counts: what dropout is drawn by


def products_obstacles(
    given: Conditions, dropout_p: float, *, masked: bool = False, gains: bool = False
) -> list[str]:
    """Why explicit products can't compute overlapped heads. Nothing said: they can, and are faster."""
    found = window_products_obstacles(given, dropout_p)
    if given.compiling:
        return found
    if given.dtype != torch.bfloat16:
        found.append(f"expected bfloat16, got {given.dtype}")
    elif not given.native_bfloat16:
        found.append("expected a processor that multiplies in bfloat16")
    if masked:
        found.append("expected no mask that is not in windows")
    if gains:
        found.append("expected no borrow_gain")
    return found


def window_products_obstacles(given: Conditions, dropout_p: float) -> list[str]:
    """The same in windows, where they serve every precision, masks and gains."""
    if given.compiling:
        return ["PyTorch's compiler can't follow it"]
    found = []
    if given.device != "cpu":
        found.append(f"expected tensors on the CPU, got {given.device}")
    if dropout_p > 0.0:
        found.append(f"expected no dropout, got {dropout_p}")
    return found


def overlap_kernel_obstacles(
    given: Conditions, head_dim: int, overlap: int, batch: int, tokens: int, *, interpreted: bool = False
) -> list[str]:
    """Why the fused kernels can't compute overlapped heads. ``auto`` doesn't take them: no GPU has timed them yet."""
    found = _triton_obstacles(given, interpreted)
    width = head_dim + 2 * overlap
    if width > MAX_OVERLAPPED_WIDTH:
        found.append(f"expected overlapped heads of at most {MAX_OVERLAPPED_WIDTH} channels, got {width}")
    for what, got, most in (("images or windows", batch, MAX_IMAGES), ("tokens", tokens, MAX_TOKENS)):
        if got > most:
            found.append(f"expected at most {most} {what}, got {got}")
    return found


def _triton_obstacles(given: Conditions, interpreted: bool) -> list[str]:
    """In float32 the kernels would keep most of their tiles out of the registers."""
    found = []
    if not given.has_triton:
        found.append("Triton is not installed")
    if given.device != "cuda" and not interpreted:
        found.append(f"expected tensors on a CUDA device, got {given.device}")
    if given.dtype not in HALF and not (interpreted and given.dtype == torch.float32):
        found.append(f"expected float16 or bfloat16, got {given.dtype}")
    return found


def is_faster_in_float32(given: Conditions) -> bool:
    """bfloat16 on a processor that has to convert at every operation."""
    return (
        given.device == "cpu"
        and given.dtype == torch.bfloat16
        and not given.native_bfloat16
        and not given.compiling
    )


# Talking heads


def talking_path(given: Conditions, num_heads: int, head_dim: int, dropout_p: float) -> str:
    """``full_width`` where flash attention takes all channels at once: one call, with h times the arithmetic."""
    if dropout_p > 0:
        return "chunked"
    if given.exporting:
        return "full_width"  # nothing but PyTorch's own operators
    flash = given.device != "cpu" and given.dtype in HALF and num_heads * head_dim <= FLASH_WIDTH
    return "full_width" if flash else "chunked"


# Of the fused kernels' tiles, which hold all heads; more channels in all would not stay in the registers.
MAX_TALKING_HEADS, MAX_TALKING_WIDTH, MAX_TALKING_CHANNELS = 16, 64, 512
MAX_DROPPING_HEADS = 8  # with more, drawing what is dropped would push tiles out of the registers


def talking_tile(num_heads: int, width: int) -> tuple[int, int]:
    """Heads and channels a head of a tile: powers of two, and of channels as many as a product takes."""
    return max(2, _power_of_two(num_heads)), max(16, _power_of_two(width))


def _power_of_two(number: int) -> int:
    """The next one that is no less."""
    return 1 << max(0, number - 1).bit_length()


def talking_kernel_obstacles(
    given: Conditions,
    num_heads: int,
    width: int,
    tokens: int,
    dropout_p: float = 0.0,
    *,
    interpreted: bool = False,
) -> list[str]:
    """Why the fused kernels can't compute talking heads. ``auto`` doesn't take them: no GPU has timed them yet."""
    found, channels = _triton_obstacles(given, interpreted), prod(talking_tile(num_heads, width))
    if dropout_p > 0 and num_heads > MAX_DROPPING_HEADS:
        found.append(f"expected no dropout with more than {MAX_DROPPING_HEADS} heads, got {dropout_p}")
    for what, got, most in (
        ("heads", num_heads, MAX_TALKING_HEADS),
        ("channels a head", width, MAX_TALKING_WIDTH),
        ("channels in a tile of all heads, each number a power of two", channels, MAX_TALKING_CHANNELS),
        ("tokens", tokens, MAX_TOKENS),
    ):
        if got > most:
            found.append(f"expected at most {most} {what}, got {got}")
    return found


# Interactive heads

MAX_LANDMARKS = MAX_WIDTH = MAX_HEADS = 64  # what the fused kernels' registers hold

# Elements of one attention matrix from which a CPU recomputes: there the memory kept, seven times less, is worth more
# than the time, measured at 0.9 to 1.4 of the stored form's with the state of the machine.
RECOMPUTE_FROM = 1 << 24
# The same where no gradient is wanted, and so nothing formed again, for each thread: tiles take 0.77 to 0.89 of the
# stored form's time from here on, and 0.97 to 1.14 of it below; in half precision 1.0 to 1.7, computing in float32.
TILE_FROM = 1 << 20


def interactive_kernel_obstacles(
    given: Conditions,
    num_heads: int,
    head_dim: int,
    num_landmarks: int,
    dropout_p: float,
    *,
    interpreted: bool = False,
) -> list[str]:
    """Why the fused kernels can't compute interactive heads."""
    found = _triton_obstacles(given, interpreted)
    for what, got, most in (
        ("landmarks", num_landmarks, MAX_LANDMARKS),
        ("channels a head", head_dim, MAX_WIDTH),
        ("heads", num_heads, MAX_HEADS),
    ):
        if got > most:
            found.append(f"expected at most {most} {what}, got {got}")
    if dropout_p > 0.0:
        found.append(f"expected no dropout, got {dropout_p}")
    return found


def interactive_path(
    given: Conditions,
    shape: tuple[int, int, int, int],
    num_landmarks: int,
    dropout_p: float,
    *,
    differentiable: bool,
    threads: int = 1,
) -> str:
    """``triton``, ``stored`` or ``recompute`` for q of ``shape`` (B, h, N, d)."""
    batch, num_heads, tokens, head_dim = shape
    if not interactive_kernel_obstacles(given, num_heads, head_dim, num_landmarks, dropout_p):
        return "triton"
    if given.device != "cpu" or given.compiling:
        return "stored"
    elements = batch * num_heads * tokens * num_landmarks
    if differentiable:
        return "recompute" if elements >= RECOMPUTE_FROM else "stored"
    whole = given.dtype in (torch.float32, torch.float64)
    return "recompute" if whole and elements >= TILE_FROM * threads else "stored"
