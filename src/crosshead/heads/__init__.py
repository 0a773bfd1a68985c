"""Measures and maps of attention heads; it looks, and changes nothing."""
