"""Worlds run by TensorRT, and the building of its engine files."""
