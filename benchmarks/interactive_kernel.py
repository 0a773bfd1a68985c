"""Registers, spills and shared memory of the fused kernels of interactive attention; the GPU need not be there.

python benchmarks/interactive_kernel.py [--capability 90] [--heads 8] [--width 32] [--landmarks 49]
"""

import argparse
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from crosshead.ops.interactive import fused, kernel

warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")
HALVES = {
    "q",
    "k",
    "v",
    "q_l",
    "k_l",
    "context",
    "mix",
    "out",
    "grad_out",
    "grad_q",
    "grad_v",
    "grad_c",
    "grad_k",
}
FLOATS = {"log_sum", "part", "part_sum", "part_mix", "part_k_l", "part_q_l", "inner_sum"}
KERNELS = {
    "sum_keys": {},
    "gather_context": {},
    "spread_context": {},
    "grad_context": {},
    "grad_queries": {},
    "grad_values": {},
    "grad_keys, statistics": {"STATISTICS": True},
    "grad_keys, gradients": {"STATISTICS": False},
}


def compile_kernel(name: str, constants: dict, warps: int, capability: int):
    function = getattr(kernel, name.split(",")[0])
    signature = {}
    for argument in function.arg_names:
        if argument.isupper() and len(argument) > 1:
            signature[argument] = "constexpr"
        elif argument in HALVES:
            signature[argument] = "*bf16"
        elif argument in FLOATS:
            signature[argument] = "*fp32"
        else:
            signature[argument] = "fp32" if argument == "scale" else "i32"
    used = {key: value for key, value in constants.items() if key in signature}
    source = ASTSource(function, signature, used)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def resources(compiled) -> dict[str, int]:
    """REG, STACK and LOCAL (bytes a thread) as NVIDIA's cuobjdump reads them from the binary."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    fields = dict(part.split(":") for part in text.split() if part.count(":") == 1 and not part.endswith(":"))
    return {key: int(fields[key]) for key in ("REG", "STACK", "LOCAL")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--landmarks", type=int, default=49)
    given = parser.parse_args()

    q = torch.empty(1, given.heads, 3136, given.width, dtype=torch.bfloat16, device="meta")
    mix = torch.empty(given.heads, given.heads, device="meta")
    print(
        f"compute capability {given.capability / 10}, bfloat16, {given.heads} heads of {given.width}, "
        f"{given.landmarks} landmarks; triton {triton.__version__}, torch {torch.__version__}"
    )
    print(f"{'kernel':24} {'group':>5} {'warps':>5} {'registers':>9} {'spilled B':>9} {'shared B':>9}")
    for name, more in KERNELS.items():
        backward = name.startswith(("grad_queries", "grad_keys"))
        group = fused.group_of_heads(None if name == "sum_keys" else mix, given.heads, given.width, backward)
        launch = fused.Launch(q, given.landmarks, group)
        constants = launch.mixing(mix) | more | {"HEADS": triton.next_power_of_2(given.heads)}
        warps = 4 if name == "sum_keys" else constants.pop("num_warps")
        constants.pop("num_warps", None)
        compiled = compile_kernel(name, constants, warps, given.capability)
        used = resources(compiled)
        spilled = used["STACK"] + used["LOCAL"]
        print(f"{name:24} {group:5} {warps:5} {used['REG']:9} {spilled:9} {compiled.metadata.shared:9}")


if __name__ == "__main__":
    main()
