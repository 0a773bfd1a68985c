"""What the mixing of heads accepts, checked in one place."""

from torch import Tensor


def check_mixing(
    num_heads: int, pre_weight: Tensor, pre_bias: Tensor | None, post_weight: Tensor, post_bias: Tensor | None
) -> None:
    """Raises ValueError unless the weights are (h, h), and the biases (h,) or None."""
    for name, weight in (("pre_weight", pre_weight), ("post_weight", post_weight)):
        if weight.shape != (num_heads, num_heads):
            raise ValueError(
                f"{name} must be (num_heads, num_heads) = ({num_heads}, {num_heads}), got {tuple(weight.shape)}; "
                "row g holds the shares of the heads in mixed head g, as in torch.nn.Linear"
            )
    for name, bias in (("pre_bias", pre_bias), ("post_bias", post_bias)):
        if bias is not None and bias.shape != (num_heads,):
            raise ValueError(f"{name} must be (num_heads,) = ({num_heads},) or None, got {tuple(bias.shape)}")
