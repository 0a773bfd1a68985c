"""Compiles the Triton kernels for GPUs that need not be there: ``python THIS FILE [sm ...]`` prints a table.

What a program keeps in registers, and what does not fit and is spilt, is known without a device, from the assembler.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from crosshead.ops.interactive import fused as interactive_fused
from crosshead.ops.interactive import kernel as interactive
from crosshead.ops.overlap import fused
from crosshead.ops.overlap import kernel as overlap
from crosshead.ops.paths import MAX_DROPPING_HEADS, talking_tile
from crosshead.ops.talking import triton_kernels as talking
from crosshead.ops.talking import triton_operator as talking_fused

HALF = "*bf16"


class Compiled(NamedTuple):
    registers: int
    spilt: int  # bytes a thread, stored and loaded
    shared: int  # bytes a program
    warps: int


def compiled(kernel, types: dict[str, str], constants: dict[str, object], warps: int, sm: int) -> Compiled:
    """``types`` and ``constants`` by argument; arguments with neither are None."""
    names = kernel.arg_names
    constants = {name: None for name in names if name not in types} | constants
    signature = {name: types.get(name, "constexpr") for name in names}
    keys = {(names.index(name),): value for name, value in constants.items()}
    whole = {
        (names.index(n),): [["tt.divisibility", 16]] for n, kind in types.items() if kind.startswith("*")
    }
    source = ASTSource(kernel, signature, keys, whole)
    made = triton.compile(source, target=GPUTarget("cuda", sm, 32), options={"num_warps": warps})
    return Compiled(*_assembled(made.asm["ptx"], sm), made.metadata.shared, warps)


def _assembled(ptx: str, sm: int) -> tuple[int, int]:
    """Registers a thread and bytes spilt, as the assembler reports them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        name = re.search(r"\.target\s+(\S+)", ptx).group(1)
        said = subprocess.run(
            [_assembler(sm), "-v", f"--gpu-name={name}", "-o", f"{path}.cubin", str(path)],
            capture_output=True,
            text=True,
        )
    if said.returncode:
        raise RuntimeError(f"expected code that assembles, got {said.stderr or said.stdout}")
    spilt = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said.stderr))
    return int(re.search(r"Used (\d+) registers", said.stderr).group(1)), spilt


def _assembler(sm: int) -> str:
    try:
        return get_ptxas(sm).path
    except TypeError:  # Triton 3.6
        return get_ptxas().path


def overlapped(name: str, head_dim: int, overlap_: int, sm: int, **forms: bool) -> Compiled:
    kernel = getattr(overlap, name)
    pad, columns = fused._columns(head_dim, overlap_)
    on = dict(GAIN=False, BIAS=False, MASK=False, CAUSAL=False, DROPOUT=False) | forms
    plain = not (on["BIAS"] or on["MASK"] or on["DROPOUT"])
    queries, keys, warps = fused.BIAS_TILE if name == "grad_bias" else fused.tile(columns, plain)
    sizes = dict(d=head_dim, o=overlap_, COLUMNS=columns, QUERIES=queries, KEYS=keys, UPCAST=False, **on)
    pointers = dict.fromkeys(["qkv", "out", "grad_out", "grads", "windows"], HALF)
    pointers |= dict.fromkeys(["log_sums", "delta", "grad_gain"], "*fp32")
    pointers["grad"] = "*fp32" if name == "grad_bias" else HALF
    pointers |= {k: HALF for k, form in (("gain", "GAIN"), ("bias", "BIAS"), ("mask", "MASK")) if on[form]}
    if on["DROPOUT"]:
        pointers["seed"] = "*i64"
    numbers = dict.fromkeys(["scale", "p"], "fp32")
    arguments = {n: pointers.get(n) or numbers.get(n) or "i32" for n in kernel.arg_names}
    optional = {"gain", "bias", "mask", "seed", "grad_gain"} - {
        k for k in pointers if k != "grad_gain" or on["GAIN"]
    }
    types = {n: t for n, t in arguments.items() if n not in sizes and n not in optional}
    constants = {n: v for n, v in sizes.items() if n in kernel.arg_names}
    return compiled(kernel, types, constants, warps, sm)


def interacting(name: str, head_dim: int, heads: int, sm: int, mixed: bool = True) -> Compiled:
    """A kernel of interactive heads, 49 landmarks."""
    kernel = getattr(interactive, name)
    backward = name in ("grad_queries", "grad_keys")
    group = interactive_fused.group_of_heads(torch.empty(0) if mixed else None, heads, head_dim, backward)
    constants = dict(
        TOKENS=interactive_fused.TOKENS, LANDMARKS=64, WIDTH=head_dim, UPCAST=False, PRECISION="tf32"
    )
    constants |= dict(GROUP=group, MIXED=mixed, HEADS=heads, STATISTICS=False)
    constants = {n: v for n, v in constants.items() if n in kernel.arg_names}
    single = {
        "log_sums",
        "log_sum",
        "parts",
        "part_q_l",
        "part_k_l",
        "part_sum",
        "part_mix",
        "inner_sum",
        "part",
    }
    operands = {
        "q",
        "k",
        "v",
        "q_l",
        "k_l",
        "out",
        "context",
        "mix",
        "grad_out",
        "grad_c",
        "grad_q",
        "grad_k",
    }
    operands |= {"grad_v"}
    types = {}
    for argument in kernel.arg_names:
        if argument in constants:
            continue
        pointer = HALF if argument in operands else "*fp32" if argument in single else None
        types[argument] = pointer or ("fp32" if argument == "scale" else "i32")
    return compiled(kernel, types, constants, 4 if name == "sum_keys" else interactive_fused.WARPS, sm)


def talking_heads(name: str, heads: int, width: int, sm: int, **forms: bool) -> Compiled:
    kernel = getattr(talking, name)
    on = dict(BIAS=False, MASK=False, CAUSAL=False, DROPOUT=False) | forms
    padded, columns = talking_tile(heads, width)
    queries, keys, warps = talking_fused.tile(padded, columns)
    sizes = dict(HEADS=padded, COLUMNS=columns, QUERIES=queries, KEYS=keys, UPCAST=False, **on)
    halves = ["q", "k", "v", "pre", "post", "post_bias", "out", "grad_out", "grad_q", "grad_k", "grad_v"]
    pointers = dict.fromkeys(halves, HALF)
    pointers |= dict.fromkeys(["log_sums", "delta", "grad_mixing", "grad"], "*fp32")
    optional = {"bias": (HALF, "BIAS"), "mask": (HALF, "MASK"), "seed": ("*i64", "DROPOUT")}
    pointers |= {argument: kind for argument, (kind, form) in optional.items() if on[form]}
    pointers["order"] = "*i64"
    numbers = dict.fromkeys(["scale", "p"], "fp32")
    absent = set(sizes) | (set(optional) - set(pointers))
    types = {n: pointers.get(n) or numbers.get(n) or "i32" for n in kernel.arg_names if n not in absent}
    return compiled(kernel, types, {n: v for n, v in sizes.items() if n in kernel.arg_names}, warps, sm)


TALKING_FORMS = {"": {}, "bias, mask": dict(BIAS=True, MASK=True), "dropout": dict(DROPOUT=True)}

FORMS = {
    "": {},
    "Swin": dict(BIAS=True, MASK=True),
    "all": dict(GAIN=True, BIAS=True, MASK=True, DROPOUT=True),
}


def table(sm: int):
    """Every kernel at the widths of the models: what, and what it compiled to."""
    for name in ("attend", "grad_keys", "grad_queries", "grad_bias"):
        for head_dim, o in ((16, 6), (20, 2), (32, 8), (64, 8)):
            for title, forms in FORMS.items():
                if name != "grad_bias" or title:
                    yield (
                        f"overlap {name} d {head_dim} o {o} {title}",
                        overlapped(name, head_dim, o, sm, **forms),
                    )
    yield from talking_table(sm)
    names = (
        "sum_keys",
        "gather_context",
        "spread_context",
        "grad_context",
        "grad_queries",
        "grad_values",
        "grad_keys",
    )
    for name in names:
        for head_dim in (32, 64):
            yield f"interactive {name} d {head_dim}", interacting(name, head_dim, 8, sm)


def talking_table(sm: int):
    """Fused talking heads, with the heads of CaiT-XXS and CaiT-S, and with 12 of ViT-Tiny, overlapped too."""
    for name in ("attend", "grad_queries", "grad_keys", "grad_bias"):
        for heads, width in ((4, 48), (8, 48), (12, 16), (12, 26)):
            for title, forms in TALKING_FORMS.items():
                refused = title == "dropout" and heads > MAX_DROPPING_HEADS
                if not refused and (name != "grad_bias" or "bias" in title):
                    found = talking_heads(name, heads, width, sm, **forms)
                    yield f"talking {name} h {heads} d {width} {title}", found


if __name__ == "__main__":
    print("kernel | sm | registers | bytes spilt | shared bytes | warps")
    for sm in map(int, sys.argv[1:] or ("80", "90")):
        for what, found in table(sm):
            print(what, sm, *found, sep=" | ", flush=True)
