"""Annotations as other tools write them, on their way to this library's layouts and back."""
