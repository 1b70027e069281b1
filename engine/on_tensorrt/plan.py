"""Plans: YAML recipes of what TensorRT builds, in ``trt_plans/`` or anywhere.

A plan says which graph, in which precision, for which batch sizes, and how hard the builder tries.
What an engine file is built from beside it, the world, is not its business. Knows neither TensorRT
nor torch.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from midas_world.config import load_config

PLANS_FOLDER = Path(__file__).parents[2] / "trt_plans"
FLAVOURS = ("tensorrt", "tensorrt-rtx")
PLAN_GRAPHS = ("head", "decoder")

# What an engine runs where nothing else is asked for.
DEFAULT_PLANS = ("head-fp16", "decoder-fp16")

# TensorRT for RTX builds for these, GPU or not; data-centre cards such as sm90 need TensorRT.
RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)
# The first compute capability whose tensor cores multiply in a precision.
_LEAST_CAPABILITY = {"fp32": 75, "fp16": 75, "bf16": 80}
_MAX_LEVEL = 5


@dataclass(frozen=True, kw_only=True)
class BatchRange:
    """Games of one call: the fewest, the number that it is tuned for, and the most.

    The batch is the only axis that is open, so the inputs' least, best and largest shapes follow.
    """

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        """Check the order."""
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(
                f"batch must have 1 <= min <= opt <= max, got {self.min}, {self.opt}, {self.max}"
            )


@dataclass(frozen=True, kw_only=True)
class TrtPlan:
    """What is built, and how.

    Attributes:
        graph: One of PLAN_GRAPHS; see engine/on_tensorrt/graphs.py.
        precision: Of weights and activations; inputs and outputs are float32 in all.
        batch: Sizes that the engine file serves.
        workspace_mib: Scratch memory that the builder may use.
        builder_level: 0 (builds fast) to 5 (runs fast).
    """

    graph: str
    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    batch: BatchRange = field(default_factory=BatchRange)
    workspace_mib: int = 1024
    builder_level: int = 3

    def __post_init__(self) -> None:
        """Check the limits."""
        if self.graph not in PLAN_GRAPHS:
            raise ValueError(f"graph must be {' or '.join(PLAN_GRAPHS)}, got {self.graph!r}")
        if self.workspace_mib < 1:
            raise ValueError(f"workspace_mib must be at least 1, got {self.workspace_mib}")
        if not 0 <= self.builder_level <= _MAX_LEVEL:
            raise ValueError(
                f"builder_level must be from 0 to {_MAX_LEVEL}, got {self.builder_level}"
            )

    def objection(self, flavour: str, capability: int) -> str:
        """Return why this plan cannot be built for a flavour and a GPU; "" if it can."""
        least = _LEAST_CAPABILITY[self.precision]
        if capability < least:
            return f"{self.precision} needs sm{least} or newer, not sm{capability}"
        if flavour == "tensorrt-rtx" and capability not in RTX_CAPABILITIES:
            known = ", ".join(f"sm{item}" for item in RTX_CAPABILITIES)
            return f"tensorrt-rtx knows {known}, not sm{capability}; use flavour tensorrt"
        return ""


def parse_capability(text: str) -> int:
    """Return 89 of "sm89" or "8.9".

    Raises:
        ValueError: The text is no compute capability.
    """
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if match is None:
        raise ValueError(f"a compute capability is written such as sm89 or 8.9, got {text!r}")
    return 10 * int(match[1]) + int(match[2])


def shipped_plans() -> tuple[str, ...]:
    """Return the names of the plans in ``trt_plans/``."""
    return tuple(sorted(file.stem for file in PLANS_FOLDER.glob("*.yaml")))


def load_plan(name: str | Path) -> TrtPlan:
    """Return a shipped plan by its name, or any by its path.

    Raises:
        ValueError: There is no such plan, or its file has an unknown key, a value of the wrong type
            or one outside its limits; the message names the nearest plan or key.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = PLANS_FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = shipped_plans()
        nearest = difflib.get_close_matches(Path(name).stem, names, n=1, cutoff=0.0)
        raise ValueError(
            f"no plan {str(name)!r}; did you mean {', '.join(map(repr, nearest))}? "
            f"Plans: {', '.join(names)}"
        )
    return load_config(TrtPlan, path)


def load_plans(names: Sequence[str | Path]) -> dict[str, TrtPlan]:
    """Return plans by what their engine files are called, in order; see `load_plan`.

    Raises:
        ValueError: Two plans have one name, or a plan cannot be read.
    """
    plans: dict[str, TrtPlan] = {}
    for name in names:
        stem = Path(name).stem if str(name).endswith((".yaml", ".yml")) else str(name)
        if stem in plans:
            raise ValueError(f"plans must have different names, got {stem!r} twice")
        plans[stem] = load_plan(name)
    return plans
