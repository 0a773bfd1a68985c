"""Knocking heads, written as their equations (arXiv 2510.23052, section 3.2)::

    Q'_i = Q_i T^Q,   K'_i = K_i T^K,   V'_i = V_i T^V            (5) to (7), T shared by all heads i
    V'_i = 2 (V_i W^up ∘ sigmoid(V_i W^gate)) W^down              (9), the gated form of the values

and then attention as usual. With T, W^up and W^down the identity and W^gate zero nothing changes. It runs in the
precision of its input on any device, and is the oracle of the fast path.
"""

import torch
from torch import Tensor

from .arguments import check_gated, check_knock


def naive_knock(q: Tensor, k: Tensor, v: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Equations 5 to 7; arguments and result as ``knock``."""
    check_knock(q, k, v, matrices)
    t_q, t_k, t_v = matrices
    return (
        torch.einsum("bhnc,cd->bhnd", q, t_q),
        torch.einsum("bhnc,cd->bhnd", k, t_k),
        torch.einsum("bhnc,cd->bhnd", v, t_v),
    )


def naive_gated_values(values: Tensor, up: Tensor, gate: Tensor, down: Tensor) -> Tensor:
    """Equation 9 for values (..., d)."""
    check_gated(values, up, gate, down)
    return 2 * ((values @ up) * torch.sigmoid(values @ gate)) @ down
