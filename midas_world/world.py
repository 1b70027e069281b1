"""A world on disk: a checkpoint folder with everything needed to play.

    stage/
        config.yaml                 the merged project config
        weights.safetensors         autoencoder, world model; int8 rows with scales
        start_states.safetensors    short real contexts that episodes begin from; int8
        keymap.yaml                 action names, and which held keys mean which action
        tokenizer.json              only where words are tokens of a language model
        README.md                   the model card

Knows the model's modules and files; engines and environments make it move.

Shapes: S start states, F frames of one, N tokens per frame, C latent channels.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_header,
    compress,
    expand,
    load_expanded,
    load_metadata,
    load_tensors,
    load_weights,
    save_tensors,
    select,
)
from midas_world.config import ActionConfig, ProjectConfig, WorldConfig, load_config, save_config
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.plain_torch import kept_random_stream, plain_torch
from midas_world.tokenizing import keep_tokenizer, know_tokenizer
from midas_world.types import CheckpointError, StepConditions, stack_vectors

WORLDS_FOLDER = Path(__file__).resolve().parent / "worlds"
# Where a world is looked for by its name alone: those that come with the package, and the folder
# that `midas-world dream` writes to.
WORLD_PLACES = (WORLDS_FOLDER, Path("worlds"))
START_STATES_NAME = "start_states.safetensors"
KEYMAP_NAME = "keymap.yaml"
# What moves latents does so in every step, over and over again.
_EXACT = ("model.motion.operators",)


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """What the actions of a world are called and which keys call them.

    Attributes:
        actions: Names, in the order of the Discrete action space.
        keys: Action name to the pygame key names ("left", "left shift") that must all be held;
            the first entry whose keys are held wins, and with none it is the first action.
    """

    actions: tuple[str, ...]
    keys: dict[str, list[str]]

    def __post_init__(self) -> None:
        """Check the names, and that every entry names an action and the keys that call it."""
        if not self.actions or len(set(self.actions)) < len(self.actions):
            raise ValueError(f"key map: actions must have different names, got {self.actions}")
        for action in self.keys:
            if action not in self.actions:
                raise ValueError(f"key map: no action {action!r}; actions: {self.actions}")
            if not self.keys[action]:
                raise ValueError(f"key map: {action!r} must name a key, or stand without")

    @classmethod
    def of(cls, actions: Mapping[str, ActionConfig]) -> "KeyMap":
        """Return the key map of actions, those of more keys first."""
        held = sorted(actions.items(), key=lambda item: -len(item[1].keys))
        keys = {name: list(action.keys) for name, action in held if action.keys}
        return cls(actions=tuple(actions), keys=keys)

    def action_of(self, held: frozenset[str] | set[str]) -> int:
        """Return the action that the held keys mean."""
        for action, keys in self.keys.items():
            if held.issuperset(keys):
                return self.actions.index(action)
        return 0


@dataclass(frozen=True, kw_only=True)
class StartState:
    """A short real context from which an episode of a world begins.

    Attributes:
        latents: (F, N, C) float32 latent tokens, oldest first; the last is the first frame shown.
        conditions: Of each of the F frames.
        conditioner_state: What the conditioner needs to go on from the last frame.
        things: (O, 2) float32 what can be seen in the last frame: class, and px from its middle.
        description: Words for it.
    """

    latents: Tensor
    conditions: tuple[StepConditions, ...]
    things: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    conditioner_state: Mapping[str, np.ndarray] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        """Check that there is one condition per frame."""
        if len(self.latents) != len(self.conditions) or not len(self.conditions):
            raise ValueError(
                f"a start state needs one condition per frame and at least one frame, "
                f"got {len(self.latents)} frames and {len(self.conditions)} conditions"
            )


@dataclass(frozen=True, kw_only=True)
class World:
    """A loaded world, in float32 and evaluation mode.

    Attributes:
        trust: Whether modules that its config names may be imported; see trust.py.
    """

    folder: Path
    config: ProjectConfig
    autoencoder: Autoencoder
    model: WorldModel
    start_states: tuple[StartState, ...]
    keymap: KeyMap
    trust: bool = False

    def tensors(self) -> dict[str, Tensor]:
        """Return every weight and buffer by its name in the weights' file."""
        return _tensors(self.autoencoder, self.model)


def find_world(name: str | Path) -> Path:
    """Return the folder of a path, or of a world's name in `WORLD_PLACES`.

    Raises:
        CheckpointError: There is no such folder; the message lists the shipped worlds.
    """
    for folder in (Path(name), *(place / str(name) for place in WORLD_PLACES)):
        if (folder / CONFIG_NAME).is_file():
            return folder
    shipped = sorted(path.parent.name for path in WORLDS_FOLDER.glob(f"*/{CONFIG_NAME}"))
    raise CheckpointError(
        f"no world {str(name)!r}: neither a folder with {CONFIG_NAME} nor a shipped one "
        f"({', '.join(shipped) or 'none'})"
    )


def find_named_world(name: str) -> Path:
    """Return the folder of a world by its name alone, which is no path.

    Raises:
        CheckpointError: There is none in `WORLD_PLACES`.
    """
    if Path(name).name == name:
        for place in WORLD_PLACES:
            if (place / name / CONFIG_NAME).is_file():
                return place / name
    raise CheckpointError(f"no world {name!r}")


@plain_torch()
def load_world(name: str | Path = "stage", *, trust: bool = False) -> World:
    """Load a world by its shipped name or its folder; this runs no code that it names.

    Args:
        name: Of a shipped world, or a folder.
        trust: Whether code that it names may run later, when it is played or measured.

    Raises:
        CheckpointError: A file is missing, corrupt or does not fit; it says which and why.
    """
    folder = find_world(name)
    try:
        config = load_config(ProjectConfig, folder / CONFIG_NAME)
        know_tokenizer(config.world.conditions.tokenizer, folder)
        keymap = load_config(KeyMap, folder / KEYMAP_NAME)
    except (ValueError, OSError) as error:
        raise CheckpointError(str(error)) from error
    path = folder / WEIGHTS_NAME
    if not folder.resolve().is_relative_to(WORLDS_FOLDER):
        _check_sizes(config.world, folder)
    start_states = load_start_states(folder / START_STATES_NAME)
    _check_start_states(start_states, config.world, source=folder / START_STATES_NAME)
    tensors = load_expanded(path)
    with kept_random_stream():
        autoencoder, model = _networks(config.world)
    source = str(path)
    load_weights(autoencoder, select(tensors, "autoencoder."), source=source)
    load_weights(model, select(tensors, "model."), source=source)
    return World(
        folder=folder,
        config=config,
        autoencoder=autoencoder.eval().requires_grad_(requires_grad=False),
        model=model.eval().requires_grad_(requires_grad=False),
        start_states=start_states,
        keymap=keymap,
        trust=trust,
    )


def _networks(config: WorldConfig) -> tuple[Autoencoder, WorldModel]:
    """Return a world's networks with their first weights."""
    return Autoencoder(config.autoencoder), WorldModel(config)


def _check_sizes(config: WorldConfig, folder: Path) -> None:
    """Compare what a stranger's config asks for with its weights before any memory is taken.

    Not for worlds that come with the package: arithmetic on the device "meta" makes torch load its
    compiler, two seconds of CPU time at every start.

    Raises:
        CheckpointError: The config asks for other networks than the weights are of.
    """
    try:
        with torch.device("meta"):
            check_header(folder / WEIGHTS_NAME, _tensors(*_networks(config)))
    except (RuntimeError, OverflowError) as error:  # sizes that overflow
        raise CheckpointError(
            f"{folder / CONFIG_NAME}: no network has such sizes: {error}"
        ) from error


def _check_start_states(states: Sequence[StartState], config: WorldConfig, *, source: Path) -> None:
    """Raise CheckpointError for a start state that does not fit a world, or is not finite."""
    shape = (config.tokens_per_frame, config.token_channels)
    sizes = {"pose": (config.conditions.pose_size,), "audio": (config.conditions.audio_size,)}
    for number, state in enumerate(states):
        wanted = [("latents", state.latents[0].numpy(), shape)]
        wanted.append(("things", state.things, (*state.things.shape[:1], 2)))
        wanted += [
            (name, vector, size)
            for step in state.conditions
            for name, size in sizes.items()
            if (vector := getattr(step, name)) is not None
        ]
        for name, array, size in wanted:
            if array.shape != size or array.dtype != np.float32:
                raise CheckpointError(
                    f"{source}: start state {number}: {name} must be {size} float32, got "
                    f"{array.shape} {array.dtype}"
                )
        arrays = [("latents", state.latents.numpy()), *((n, array) for n, array, _ in wanted)]
        for name, array in [*arrays, *state.conditioner_state.items()]:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CheckpointError(f"{source}: start state {number}: {name} is not finite")
        if (num := config.entries.num_classes) and not np.isin(
            state.things[:, 0], range(num)
        ).all():
            raise CheckpointError(f"{source}: start state {number}: no classes of this world's")
        texts = [state.description, *(step.text for step in state.conditions)]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise CheckpointError(f"{source}: start state {number}: a text is of another kind")


def save_world(
    folder: Path,
    *,
    config: ProjectConfig,
    autoencoder: Autoencoder,
    model: WorldModel,
    start_states: Sequence[StartState],
    keymap: KeyMap,
) -> None:
    """Write a world's files, each whole or not at all; the config comes last."""
    tensors = compress(_tensors(autoencoder, model), exact=_EXACT)
    save_tensors(tensors, folder / WEIGHTS_NAME)
    save_start_states(start_states, folder / START_STATES_NAME)
    save_config(keymap, folder / KEYMAP_NAME)
    keep_tokenizer(config.world.conditions.tokenizer, folder)
    save_config(config, folder / CONFIG_NAME)


def _tensors(autoencoder: Autoencoder, model: WorldModel) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in (("autoencoder", autoencoder), ("model", model))
        for name, tensor in module.state_dict().items()
    }


def things_in_view(things: np.ndarray, *, width: int) -> np.ndarray:
    """Return `StartState.things` of a teacher's ``info["things"]`` (O, 6) of frames of a width."""
    shown = things[(things[:, 0] >= 0) & (np.abs(things[:, 1] - width / 2) < width / 2)]
    return np.stack((shown[:, 0], shown[:, 1] - width / 2), axis=1).astype(np.float32)


def save_start_states(start_states: Sequence[StartState], path: Path) -> None:
    """Write start states as one safetensors file."""
    tensors: dict[str, Tensor] = {}
    words: list[dict[str, object]] = []
    for index, state in enumerate(start_states):
        prefix = f"{index:04d}."
        # A frame's rounding lies far below the noise that the decoder forgives.
        tensors |= compress({prefix + "latents": state.latents})
        tensors[prefix + "things"] = torch.from_numpy(state.things)
        present: dict[str, list[bool]] = {}
        for name in ("pose", "audio"):
            given = [getattr(step, name) for step in state.conditions]
            present[name] = [row is not None for row in given]
            sizes = [len(row) for row in given if row is not None]
            if sizes:
                rows = stack_vectors(state.conditions, name, sizes[0])
                tensors[prefix + name] = torch.from_numpy(rows)
        for key, value in state.conditioner_state.items():
            tensors[f"{prefix}conditioner.{key}"] = torch.from_numpy(np.array(value, order="C"))
        texts = [step.text for step in state.conditions]
        words.append({"description": state.description, "texts": texts, "present": present})
    save_tensors(tensors, path, metadata={"start_states": json.dumps(words)})


def load_start_states(path: Path) -> tuple[StartState, ...]:
    """Read start states; `CheckpointError` if the file is missing, corrupt or incomplete."""
    tensors = load_tensors(path)
    latents = [name for name in tensors if re.fullmatch(r"\d{4}\.latents(:scale)?", name)]
    try:
        # The rest is not compressed, and may hold int8 of its own.
        tensors |= expand({name: tensors.pop(name) for name in latents})
        words = json.loads(load_metadata(path)["start_states"])
        return tuple(
            _start_state(select(tensors, f"{index:04d}."), item) for index, item in enumerate(words)
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds no start states, or not all of them: {type(error).__name__} {error}"
        ) from error


def _start_state(tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> StartState:
    """Return one start state of its tensors and its words."""

    def vector(name: str, row: int) -> np.ndarray | None:
        return tensors[name][row].numpy() if words["present"][name][row] else None

    return StartState(
        latents=tensors["latents"],
        conditions=tuple(
            StepConditions(pose=vector("pose", row), text=text, audio=vector("audio", row))
            for row, text in enumerate(words["texts"])
        ),
        things=tensors["things"].numpy(),
        conditioner_state={
            key: value.numpy() for key, value in select(tensors, "conditioner.").items()
        },
        description=words["description"],
    )
