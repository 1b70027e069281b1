"""Engines: run a world's networks on a backend; rollouts play games on them."""
