"""What an environment of a learned world has, whether it plays one game of it or many."""

import copy
from pathlib import Path
from typing import Any, Self

from engine.spec import Engine
from envs.contract import check_begun
from envs.world.games import Games
from midas_world.world import KeyMap, StartState, World


class WorldBase:
    """The world behind an environment that keeps its games in `_games`."""

    _games: Games
    _arguments: dict[str, Any]  # that it was made with
    _STREAMS: tuple[str, ...]  # what holds its own chance

    @property
    def world(self) -> World:
        """The world that is played."""
        return self._games.world

    @property
    def engine(self) -> Engine:
        """What runs its networks."""
        return self._games.engine

    @property
    def horizon(self) -> int:
        """Steps until an episode is truncated."""
        return self._games.options.horizon

    @property
    def keymap(self) -> KeyMap:
        """Which held keys mean which action."""
        return self.world.keymap

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions, in the order of the discrete action space."""
        return self._games.actions

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the keys, in the order in which action="keys" holds them."""
        return self._games.keys

    @property
    def start_states(self) -> tuple[StartState, ...]:
        """What episodes begin from."""
        return self.world.start_states

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made with and its state; the world is loaded again.

        Raises:
            TypeError: It plays on an engine of its own.
        """
        if self._arguments.get("engine") is not None:
            raise TypeError(
                "an environment that was given an engine cannot be pickled: make it without "
                "engine=, or send its save_state() to another one"
            )
        own = dict(self._arguments)
        if isinstance(own["world"], World):
            own["world"] = str(own["world"].folder)
        elif (folder := Path(own["world"])).is_dir():
            own["world"] = str(folder.resolve())
        return _make_again, (type(self), own, _moment(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an environment that goes on from here, on the same engine."""
        made = type(self)(**self._arguments | {"world": self.world, "engine": self.engine})
        made._arguments = self._arguments
        _go_on_from(made, _moment(self))
        return made

    def _check_begun(self, what: str) -> None:
        check_begun(self._games.course.has_begun, what)


def _moment(env: Any) -> dict[str, Any]:
    """Return all of a `WorldBase` that changes, beside what it was made with."""
    return {
        "spec": env.spec,
        "streams": copy.deepcopy([getattr(env, name) for name in env._STREAMS]),
        "state": env.save_state() if env._games.course.has_begun else None,
    }


def _go_on_from(env: Any, moment: dict[str, Any]) -> None:
    """Go on from what `_moment` gave."""
    env.spec = moment["spec"]
    if moment["state"] is not None:
        env.restore_state(moment["state"])
    for name, stream in zip(env._STREAMS, moment["streams"], strict=True):
        setattr(env, name, stream)


def _make_again(
    kind: type[WorldBase], arguments: dict[str, Any], moment: dict[str, Any]
) -> WorldBase:
    """Return the environment that was pickled."""
    made = kind(**arguments)
    _go_on_from(made, moment)
    return made
