"""Running means over images."""

from torch import Tensor


class Means:
    """Means over images by name, in float64; each image weighs the same."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Takes one value, or one tensor, an image: (images, ...)."""
        total = values.double().sum(0)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._images[name] = self._images.get(name, 0) + len(values)

    def result(self) -> dict[str, Tensor]:
        return {name: total.cpu() / self._images[name] for name, total in self._sums.items()}
