"""Voices that come from outside a game, and what plays its sound."""
