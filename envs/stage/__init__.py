"""The shipped teacher: Stage, a side-view game drawn with pygame."""
