"""The loop that both stages train in: AdamW, schedule, averaged weights, logs, exact resume.

It knows nothing of what is learned. A stage hands over a module whose forward takes a batch and
returns named losses, and a function that makes the batch of a train step from that step's own
generator; so a run that was killed goes on exactly as if it had not been.
"""

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from midas_world.checkpoint import load_tensors, load_weights, save_tensors, select
from midas_world.config import OptimizerConfig
from midas_world.train.optimizer import make_optimizers
from midas_world.train.processes import start_processes
from midas_world.train.sharding import Shards, local, take_share, take_shares, whole
from midas_world.types import MidasWorldError

logger = logging.getLogger(__name__)

STATE_NAME = "train_state.safetensors"
LOG_NAME = "log.csv"


class TrainingError(MidasWorldError):
    """Training cannot go on."""


def step_generator(seed: int, train_step: int, *, rank: int = 0) -> torch.Generator:
    """Return the generator that makes every random choice of one train step of one process."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + train_step) * 4_099 + rank)
    return generator


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Make the random weights of modules built inside depend on a seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def schedule(config: OptimizerConfig, train_step: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, then cosine decay."""
    if train_step < config.warmup_steps:
        return (train_step + 1) / config.warmup_steps
    done = (train_step - config.warmup_steps) / max(1, config.train_steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    low = config.final_learning_rate
    return low + (1.0 - low) * cosine


def mixed_precision(device: torch.device, *, enabled: bool) -> AbstractContextManager[Any]:
    """Return bf16 autocast, or nothing."""
    if not enabled:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Let numbers be 0 that are so small that a CPU takes ten times as long for each.

    The momentum of what has no gradient fades to such.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Keeper(Protocol):
    """Something beside the weights that goes on from train step to train step."""

    def state(self) -> dict[str, Tensor]:
        """Return all of it."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly from what `state` gave."""
        ...


class Trainer:
    """A module, its average, its optimizer and its logs in one folder.

    Args:
        module: Its forward returns tensors by name: "loss", other scalars that are logged, and what
            `run`'s ``after_step`` goes on with.
        config: The optimizer's numbers.
        folder: Receives ``train_state.safetensors``, ``log.csv`` and TensorBoard events.
        seed: Of every random choice.
        device: Where it trains.
        find_unused: Whether some parameters may be without a gradient (several processes).
        sharding: "full" splits the weights over the processes, if there are several.
        keeper: What else belongs to the state: what goes on from train step to train step.

    Attributes:
        trained: What the optimizers move: the module, or where its weights are split, a copy with
            this process's share of them. The module itself then has weights only in `averaged`.
    """

    def __init__(
        self,
        module: nn.Module,
        config: OptimizerConfig,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        find_unused: bool = False,
        sharding: Literal["none", "full"] = "none",
        keeper: "Keeper | None" = None,
    ) -> None:
        self.keeper = keeper
        self.processes = start_processes(device)
        is_alone = self.processes.count == 1
        if sharding == "full" and is_alone:
            logger.info("sharding is full, but one process alone has nothing to shard")
        is_sharded = sharding == "full" and not is_alone
        self.shards = Shards(module, device=device, bf16=config.bf16) if is_sharded else None
        self.module = module
        self.trained = self.shards.trained if self.shards else module.to(device)
        self.config = config
        self.folder = folder
        self.seed = seed
        self.device = device
        self.train_step = 0
        self.average = {name: t.detach().clone() for name, t in self.trained.state_dict().items()}
        self.optimizers = make_optimizers(self.trained, config)
        self.wrapped: nn.Module = self.trained
        if not is_alone and not is_sharded:
            # Buffers are each process's own, or the same by construction.
            self.wrapped = DistributedDataParallel(
                self.module, find_unused_parameters=find_unused, broadcast_buffers=False
            )
        folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        make_batch: Callable[[torch.Generator, int], Mapping[str, Any]],
        *,
        save_every: int,
        evaluate_every: int,
        evaluate: Callable[[], Mapping[str, float]],
        before_step: Callable[[int], None] | None = None,
        after_step: Callable[[Mapping[str, Tensor]], None] | None = None,
        stop_at: int | None = None,
    ) -> None:
        """Train from where the folder's state left off to the last train step.

        Args:
            make_batch: From the step's generator and number to keyword arguments of the module.
            save_every: Train steps between states on disk.
            evaluate_every: Train steps between evaluations.
            evaluate: Returns named numbers for the log; the average is in the module meanwhile.
            before_step: Called with the train step's number before each.
            after_step: Called after each with what the module returned, detached.
            stop_at: Stop (and save) earlier than the config says.

        Raises:
            TrainingError: When gradients are no longer finite; what was saved before stays.
        """
        last = min(self.config.train_steps, stop_at or self.config.train_steps)
        first_process = self.processes.is_first
        gathers = first_process or self.shards is not None
        saves = gathers or self.keeper is not None
        bar = tqdm(
            total=self.config.train_steps,
            initial=self.train_step,
            disable=not first_process,
            mininterval=5.0,
            unit="step",
        )
        seen, started = 0, time.perf_counter()
        with bar, flushed_denormals():
            while self.train_step < last:
                if before_step:
                    before_step(self.train_step)
                generator = step_generator(self.seed, self.train_step, rank=self.processes.rank)
                made = self._update(make_batch(generator, self.train_step))
                if after_step:
                    after_step(made)
                self.train_step += 1
                seen += self.config.batch_size * self.processes.count
                bar.update()
                is_last = self.train_step == last
                is_saved = self.train_step % save_every == 0 or is_last
                if self.train_step % 20 == 0 or is_saved:
                    self._check_finite(made["grad_norm"])
                if self.train_step % 20 == 0 or is_last:
                    values = {name: float(value) for name, value in made.items() if not value.ndim}
                    rate = seen / (time.perf_counter() - started)
                    bar.set_postfix(
                        {**{k: f"{v:.4f}" for k, v in values.items()}, "items/s": f"{rate:.1f}"}
                    )
                    if first_process:
                        self._log(
                            {
                                **values,
                                "items_per_s": rate,
                                "lr": self._share() * self.config.learning_rate,
                            }
                        )
                if self.train_step % evaluate_every == 0 or is_last:
                    if gathers:
                        with self.averaged():
                            if first_process:
                                self._log({f"eval/{k}": v for k, v in evaluate().items()})
                    self.processes.wait()
                    seen, started = 0, time.perf_counter()
                if is_saved and saves:
                    self.save()
        self.processes.wait()

    def _check_finite(self, norm: Tensor) -> None:
        """Stop before weights that nothing can be learned with replace those on disk."""
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"training has diverged: at train step {self.train_step} the gradients are no "
                f"longer finite. {self.folder} holds the last state before it: run again with a "
                "lower optimizer.learning_rate and optimizer.muon_learning_rate to go on from there"
            )

    def _share(self) -> float:
        return schedule(self.config, self.train_step)

    def _update(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take one optimizer update and return what the module made, detached."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._share() * group["peak"]
        with mixed_precision(self.device, enabled=self.config.bf16):
            made = self.wrapped(**batch)
        made["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # A short average at first, so that the random start does not linger in it.
        decay = min(self.config.ema_decay, (1 + self.train_step) / (10 + self.train_step))
        with torch.no_grad():
            state = self.trained.state_dict()
            floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                [local(self.average[name]) for name in floats],
                [local(state[name]) for name in floats],
                1.0 - decay,
            )
        detached = {name: value.detach() for name, value in made.items()}
        return {**detached, "grad_norm": whole(norm)}

    def averaged(self) -> AbstractContextManager[None]:
        """Put the averaged weights into the module for the length of a ``with``.

        Where the weights are split, all processes must enter, and the first one's module has them.
        """
        if self.shards:
            return self.shards.holding(self.average)
        return _Swapped(self.module, self.average)

    def save(self) -> None:
        """Write the whole state; the previous one stays until this one is whole.

        For the first process, and where the weights are split or there is a keeper, for all of
        them: the first writes.
        """
        kept: list[Any] = [None] * self.processes.count
        if self.keeper is not None:
            kept = [dict(self.keeper.state())]
            if self.processes.count > 1:
                kept *= self.processes.count
                distributed.all_gather_object(kept, kept[0])
        tensors: dict[str, Tensor] = {"train_step": torch.tensor(self.train_step)}
        tensors |= {f"module.{k}": v for k, v in self.trained.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name, parameter in self.trained.named_parameters():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{key}.{name}"] = value
        for rank, state in enumerate(kept):
            tensors |= {f"kept.{rank}.{name}": tensor for name, tensor in (state or {}).items()}
        # Clones: two names of one storage are refused by safetensors.
        if self.shards:
            copies = self.shards.gather(tensors, torch.device("cpu"))
        else:
            copies = {k: v.clone() for k, v in tensors.items()}
        if self.processes.is_first:
            save_tensors(copies, self.folder / STATE_NAME)

    def resume(self) -> bool:
        """Continue from the folder's state, if there is one; return whether there was.

        Raises:
            CheckpointError: The state is corrupt or belongs to another config.
        """
        path = self.folder / STATE_NAME
        if not path.is_file():
            return False
        tensors = load_tensors(path)
        own = self.trained.state_dict()
        weights, average = (
            take_shares(select(tensors, prefix), own) for prefix in ("module.", "average.")
        )
        load_weights(self.trained, weights, source=str(path))
        self.average = {name: value.to(self.device) for name, value in average.items()}
        parameters = dict(self.trained.named_parameters())
        for optimizer in self.optimizers:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for key in ("step", "exp_avg", "exp_avg_sq", "momentum"):
                for name, value in select(tensors, f"optimizer.{key}.").items():
                    parameter = parameters[name]
                    if id(parameter) not in held:
                        continue
                    placed = take_share(value, parameter).to(self.device)
                    if value.shape == parameter.shape:
                        # In the parameter's memory format: fused AdamW reads both by address,
                        # and would pair channels-last weights with other weights' averages.
                        placed = torch.empty_like(parameter).copy_(placed)
                    optimizer.state[parameter][key] = placed
        # There is none where there are more processes now: theirs begin anew.
        if self.keeper is not None and (kept := select(tensors, f"kept.{self.processes.rank}.")):
            self.keeper.load_state(kept)
        self.train_step = int(tensors["train_step"])
        logger.info("resumed %s at train step %d", path, self.train_step)
        return True

    def _log(self, values: Mapping[str, float]) -> None:
        """Append rows to the CSV log (train_step, name, value) and to TensorBoard."""
        path = self.folder / LOG_NAME
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(("train_step", "name", "value"))
            for name, value in values.items():
                writer.writerow((self.train_step, name, f"{value:.6g}"))
        # Imported here: it takes a second, and only a training run wants it.
        from torch.utils.tensorboard import SummaryWriter

        if not hasattr(self, "_writer"):
            self._writer = SummaryWriter(str(self.folder / "tensorboard"))
        for name, value in values.items():
            self._writer.add_scalar(name, value, self.train_step)
        if any(name.startswith("eval/") for name in values):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info("train step %d: %s", self.train_step, shown)


class _Swapped(AbstractContextManager[None]):
    """Weights in a module exchanged for others while inside."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.module, self.weights = module, weights

    def __enter__(self) -> None:
        self.kept = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        self._copy(self.weights)
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self._copy(self.kept)
        self.module.train()

    @torch.no_grad()
    def _copy(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in self.module.state_dict().items():
            tensor.copy_(weights[name])
