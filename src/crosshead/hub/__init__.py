"""Models on Hugging Face's hub: written there with a card of what is known of them, and read back by name."""

from .publish import push_to_hub, write_repository

__all__ = ["push_to_hub", "write_repository"]
