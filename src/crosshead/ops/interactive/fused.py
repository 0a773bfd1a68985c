"""The fused GPU kernels as one differentiable operator: what they serve, and how they are launched."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor

from ..chunks import empty_token_major
from ..modes import is_differentiated_again, plain_gradients
from ..paths import Conditions, interactive_kernel_obstacles
from . import kernel
from .arguments import Geometry
from .landmarks import pool_landmarks
from .stored import attend_stored

TOKENS = 32  # of a tile
WARPS = 8
PROGRAMS = 264  # to aim at where a sum is split over tokens: two for each of the 132 processors of an H100

INTERPRETED = not isinstance(kernel.gather_context, triton.JITFunction)


def attend_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
    dropout_p: float,
    geometry: Geometry,
) -> Tensor:
    """O = Â_Q (Â_K V), (B, heads, N, head_dim), in one fused kernel a pass.

    Raises:
        ValueError: for a device, dtype or size that the kernels don't serve.
    """
    obstacles = interactive_kernel_obstacles(
        Conditions.of(q), q.shape[1], q.shape[3], geometry.num_landmarks, dropout_p, interpreted=INTERPRETED
    )
    if obstacles:
        raise ValueError(f"backend='triton' can't serve this: {'; '.join(obstacles)}; use backend='auto'")
    out: Tensor = _attend(q, k, v, *pool_landmarks(q, k, geometry), mix_query, mix_key, scale)[0]
    return out


R = TypeVar("R")


def on_its_device(launch: Callable[..., R]) -> Callable[..., R]:
    """Makes the device of the first operand the current one: Triton launches there, wherever the tensors are."""

    @wraps(launch)
    def launched(x: Tensor, *more: Any) -> R:
        with torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext():
            return launch(x, *more)

    return launched


@torch.library.custom_op("crosshead::interactive_attention", mutates_args=())
@on_its_device
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_landmarks: Tensor,
    k_landmarks: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward the context (B, H, L, width) and A_K's row statistics (B, H, L)."""
    if q.shape[0] == 0:
        return _empty_results(q, q_landmarks)
    q, k, v = _unit_stride(q), _unit_stride(k), _unit_stride(v)
    q_l, k_l = q_landmarks.contiguous(), k_landmarks.contiguous()
    batch, heads, tokens, width = q.shape
    landmarks = q_l.shape[2]
    sizes = (heads, tokens, landmarks, width, scale)

    launch = Launch(q, landmarks, group=1)
    parts = q.new_empty(launch.splits, batch, heads, landmarks, dtype=torch.float32)
    kernel.sum_keys[(launch.splits, heads, batch)](
        q_l, k, parts, *k.stride()[:3], *sizes, launch.chunk, **launch.tile(), num_warps=4
    )
    log_sums = torch.logsumexp(parts, 0)

    launch = Launch(q, landmarks, group_of_heads(mix_key, heads, width))
    parts = q.new_empty(launch.splits, batch, heads, landmarks, width, dtype=torch.float32)
    kernel.gather_context[launch.split_grid](
        q_l, k, v, log_sums, mix_key, parts, *k.stride()[:3], *v.stride()[:3], *sizes, launch.chunk,
        **launch.mixing(mix_key),
    )  # fmt: skip
    context = parts.sum(0).to(q.dtype)

    launch = Launch(q, landmarks, group_of_heads(mix_query, heads, width))
    out = empty_token_major(q)
    kernel.spread_context[launch.tile_grid](
        q,
        k_l,
        context,
        mix_query,
        out,
        *q.stride()[:3],
        *out.stride()[:3],
        *sizes,
        **launch.mixing(mix_query),
    )
    return out, context, log_sums


@_attend.register_fake
def _(q, k, v, q_landmarks, k_landmarks, mix_query, mix_key, scale):  # type: ignore[no-untyped-def]
    return _empty_results(q, q_landmarks)


def _empty_results(q: Tensor, q_landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_sums = q.new_empty(q_landmarks.shape[:3], dtype=torch.float32)
    return empty_token_major(q), q.new_empty(q_landmarks.shape), log_sums


@torch.library.custom_op("crosshead::interactive_attention_backward", mutates_args=())
@on_its_device
def _attend_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_landmarks: Tensor,
    k_landmarks: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    context: Tensor,
    log_sums: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, of the landmarks, and of the mixing matrices (zeros where there are none)."""
    if q.shape[0] == 0:
        out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _empty_gradients(
            q, k, v, context
        )
        return out
    grad_out, q, k, v = (_unit_stride(t) for t in (grad_out, q, k, v))
    q_l, k_l = q_landmarks.contiguous(), k_landmarks.contiguous()
    batch, heads, tokens, width = q.shape
    landmarks = q_l.shape[2]
    sizes = (heads, tokens, landmarks, width, scale)
    grad_q, grad_k, grad_v = empty_token_major(q), empty_token_major(k), empty_token_major(v)
    q_s, k_s, v_s, out_s = (t.stride()[:3] for t in (q, k, v, grad_out))

    launch = Launch(q, landmarks, group_of_heads(mix_query, heads, width))
    parts = q.new_empty(launch.splits, batch, heads, landmarks, width, dtype=torch.float32)
    kernel.grad_context[launch.split_grid](
        q, k_l, mix_query, grad_out, parts, *q_s, *out_s, *sizes, launch.chunk, **launch.mixing(mix_query)
    )
    grad_c = parts.sum(0).to(q.dtype)

    launch = Launch(q, landmarks, group_of_heads(mix_query, heads, width, backward=True))
    parts = q.new_empty(launch.splits, *grad_c.shape, dtype=torch.float32)
    mix_parts = q.new_zeros(launch.splits, batch, heads, heads, dtype=torch.float32)
    kernel.grad_queries[launch.split_grid](
        q, k_l, context, mix_query, grad_out, grad_q, parts, mix_parts, *q_s, *out_s, *grad_q.stride()[:3],
        *sizes, launch.chunk, HEADS=triton.next_power_of_2(heads), **launch.mixing(mix_query),
    )  # fmt: skip
    grad_k_l, grad_mix_query = parts.sum(0).to(q.dtype), mix_parts.sum((0, 1)).to(q.dtype)

    launch = Launch(q, landmarks, group_of_heads(mix_key, heads, width))
    kernel.grad_values[launch.tile_grid](
        q_l,
        k,
        log_sums,
        mix_key,
        grad_c,
        grad_v,
        *k_s,
        *grad_v.stride()[:3],
        *sizes,
        **launch.mixing(mix_key),
    )

    launch = Launch(q, landmarks, group_of_heads(mix_key, heads, width, backward=True))
    parts = q.new_empty(launch.splits, *grad_c.shape, dtype=torch.float32)
    sum_parts = q.new_empty(launch.splits, *log_sums.shape, dtype=torch.float32)
    mix_parts = q.new_zeros(launch.splits, batch, heads, heads, dtype=torch.float32)
    inner_sum = torch.empty_like(log_sums)
    for statistics in (True, False):
        kernel.grad_keys[launch.split_grid](
            q_l, k, v, log_sums, grad_c, mix_key, inner_sum, sum_parts, mix_parts, grad_k, parts,
            *k_s, *v_s, *grad_k.stride()[:3], *sizes, launch.chunk, STATISTICS=statistics,
            HEADS=triton.next_power_of_2(heads), **launch.mixing(mix_key),
        )  # fmt: skip
        if statistics:
            inner_sum = sum_parts.sum(0)
    grad_q_l, grad_mix_key = parts.sum(0).to(q.dtype), mix_parts.sum((0, 1)).to(q.dtype)
    return grad_q, grad_k, grad_v, grad_q_l, grad_k_l, grad_mix_query, grad_mix_key


@_attend_backward.register_fake
def _(grad_out, q, k, v, q_landmarks, k_landmarks, mix_query, mix_key, context, log_sums, scale):  # type: ignore[no-untyped-def]
    return _empty_gradients(q, k, v, context)


def _empty_gradients(q: Tensor, k: Tensor, v: Tensor, context: Tensor) -> Any:
    """Room for all gradients; the last two, of the mixing matrices, hold zeros."""
    tokens = [empty_token_major(t) for t in (q, k, v)]
    landmarks = [context.new_empty(context.shape) for _ in range(2)]
    return *tokens, *landmarks, *(q.new_zeros(q.shape[1], q.shape[1]) for _ in range(2))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    if is_differentiated_again():
        operands = (*ctx.saved_tensors[:7], ctx.scale, 0.0)
        return *plain_gradients(attend_stored, operands, grad_out)[:7], None
    *grads, grad_mix_query, grad_mix_key = _attend_backward(grad_out, *ctx.saved_tensors, ctx.scale)
    _, _, _, _, _, mix_query, mix_key, _, _ = ctx.saved_tensors
    return (
        *grads,
        None if mix_query is None else grad_mix_query,
        None if mix_key is None else grad_mix_key,
        None,
    )


_attend.register_autograd(_differentiate, setup_context=_save)


class Launch:
    """Tile sizes, and how the tokens are split over programs, for groups of ``group`` output heads."""

    def __init__(self, q: Tensor, landmarks: int, group: int) -> None:
        batch, heads, tokens, width = q.shape
        tiles, groups = triton.cdiv(tokens, TOKENS), triton.cdiv(heads, group)
        splits = min(tiles, max(1, PROGRAMS // (batch * groups)))
        self.chunk = triton.cdiv(tiles, splits) * TOKENS
        self.splits = triton.cdiv(tokens, self.chunk)
        self.split_grid = (self.splits, groups, batch)
        self.tile_grid = (tiles, groups, batch)
        self._group = group
        exact = q.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
        self._tile = dict(
            TOKENS=TOKENS,
            LANDMARKS=max(16, triton.next_power_of_2(landmarks)),
            WIDTH=max(16, triton.next_power_of_2(width)),
            UPCAST=INTERPRETED and q.dtype != torch.float32,
            PRECISION="ieee" if exact or INTERPRETED else "tf32",
        )

    def tile(self) -> dict[str, Any]:
        return self._tile

    def mixing(self, mix: Tensor | None) -> dict[str, Any]:
        return self._tile | dict(GROUP=self._group, MIXED=mix is not None, num_warps=WARPS)


def group_of_heads(mix: Tensor | None, heads: int, width: int, backward: bool = False) -> int:
    """Output heads that a program mixes for: as many as sm_90 has registers for (``python tests/ops/offline.py``)."""
    if mix is None:
        return 1
    most = 8 if width <= 32 else 4
    out: int = min(triton.next_power_of_2(heads), most // 4 if backward else most)
    return out


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
