"""Worlds run by ONNX Runtime, and the export of their graphs."""
