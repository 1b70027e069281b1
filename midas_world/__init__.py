"""midas_world: the model of a learned game, its training and its evaluation."""

__version__ = "0.1.0"
