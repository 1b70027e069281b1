"""Worlds run by PyTorch."""
