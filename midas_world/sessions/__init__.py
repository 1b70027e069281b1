"""Recorded sessions: what was played, written beside the game and readable up to a cut."""
