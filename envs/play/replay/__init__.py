"""Recorded sessions, shown again and played on."""
