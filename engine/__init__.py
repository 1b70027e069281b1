"""Engines: run a world's networks on a backend; rollouts play games on them."""

from pkgutil import extend_path

from engine.make import BACKENDS, make_engine
from engine.on_torch.engine import TorchEngine
from engine.spec import Cache, Engine, EngineSpec, Made

__all__ = ["BACKENDS", "Cache", "Engine", "EngineSpec", "Made", "TorchEngine", "make_engine"]

# Beside a folder `engine` of another project, of which Python would find ours alone.
__path__ = extend_path(__path__, __name__)
