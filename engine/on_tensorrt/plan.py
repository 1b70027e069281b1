"""Plans: YAML recipes of what TensorRT builds, one in ``trt_plans/`` for each graph.

A plan says in which precision and for how many games. What an engine file is built from beside it,
the world, is not its business. Knows neither TensorRT nor torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from midas_world.config import load_config

PLANS_FOLDER = Path(__file__).parents[2] / "trt_plans"
PLAN_GRAPHS = ("head", "decoder")


@dataclass(frozen=True, kw_only=True)
class TrtPlan:
    """How a graph is built.

    Attributes:
        precision: Of weights and activations; inputs and outputs are float32 in all.
        max_batch: Games of one call at most; what is built is fastest for one.
    """

    precision: Literal["fp32", "fp16", "bf16"]
    max_batch: int

    def __post_init__(self) -> None:
        """Check the limits."""
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {self.max_batch}")


def load_plan(graph: str) -> TrtPlan:
    """Return the plan of a graph, one of PLAN_GRAPHS.

    Raises:
        ValueError: Its file has an unknown key, or a value of the wrong type or outside its limits.
    """
    return load_config(TrtPlan, PLANS_FOLDER / f"{graph}.yaml")
