"""What this machine's processor can do by itself."""

import platform
from functools import cache

import torch


@cache
def has_native_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16. An x86 one without AVX512_BF16 and AMX converts at every operation; of
    others nothing is known, and it is taken for granted."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
