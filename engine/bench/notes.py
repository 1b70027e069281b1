"""What a reader of the numbers must know: the sentences that stand below a result's tables."""

import torch

from engine.bench.roofline import Rates
from engine.bench.timing import WARM_UP_STEPS
from engine.spec import EngineSpec


def timing_notes(num_steps: int, *, spec: EngineSpec, has_parts: bool) -> list[str]:
    """Return what was timed and how.

    Args:
        num_steps: Timed, of each batch size and of the parts.
        spec: Of the engine.
        has_parts: Whether parts were timed.
    """
    notes = [
        f"Times of {num_steps} steps after {WARM_UP_STEPS} to warm up. A whole step is the "
        "rollout's step and the frames as an array on the CPU.",
        "Peak memory is that of the whole process while so many games were played; GPU peak is "
        "what PyTorch allocated.",
    ]
    if not has_parts:
        return [*notes, "Only the parts of torch and ONNX Runtime can be timed one by one."]
    how = "one after another in steps of their own, by the CPU's clock"
    if spec.backend == "onnx":
        how = "in whole steps of their own, a part being a graph"
    elif spec.device.startswith("cuda"):
        how = "one after another in steps of their own, by GPU events"
    notes.append(
        f'Parts were timed {how}; "Python and the rest" is the whole median less theirs: noise, '
        "stacking of conditions, calls."
    )
    return notes


def roofline_notes(rates: Rates, dtype: str) -> list[str]:
    """Return what the rooflines are made of, and what they leave out."""
    notes = [
        "Roofline of a part: the longer of its bytes at the copy's rate and its operations at the "
        "matrix product's; a step's is the sum. Weights that stay in the processor's caches from "
        "one step to the next can beat it. Activations are counted coarsely, and pixels, copies, "
        "norms and activation functions not at all."
    ]
    if dtype not in rates.flops_per_s:
        notes.append(
            f"No {dtype} product can be timed here: such parts are bounded by bytes alone."
        )
    return notes


def load_notes(load: float) -> list[str]:
    """Return that the machine had other work to do, if it had by its load average."""
    if load <= torch.get_num_threads() + 0.5:
        return []
    return [f"Other work was going on (load average {load:.1f}): all of this is slower for it."]
