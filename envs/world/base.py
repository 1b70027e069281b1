"""What an environment of a learned world has, whether it plays one game of it or many."""

from engine import Engine
from envs.contract import check_begun
from envs.world.games import Games
from midas_world.world import KeyMap, StartState, World


class WorldBase:
    """The world behind an environment that keeps its games in `_games`."""

    _games: Games

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
        return self._games.horizon

    @property
    def keymap(self) -> KeyMap:
        """Which held keys mean which action."""
        return self.world.keymap

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions, in the order of the discrete action space."""
        return self.keymap.actions

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the keys, in the order in which action="keys" holds them."""
        return self._games.keys

    @property
    def start_states(self) -> tuple[StartState, ...]:
        """What episodes begin from."""
        return self.world.start_states

    def _check_begun(self, what: str) -> None:
        check_begun(self._games.has_begun, what)
