"""The window: what it draws, and the keys and pads that it hears."""
