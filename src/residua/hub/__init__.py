"""A memory's folder and the Hugging Face Hub: the card that describes it, and the way there and back."""

from residua.hub.shared import HubOptions, Shared, fetched

__all__ = ["HubOptions", "Shared", "fetched"]
