"""The window that games are played in, and playing without one."""
