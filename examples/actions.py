"""The actions that coins need."""

from envs.stage.controller import ACTIONS

# All others cost a learner or a planner steps and bring no coins.
ACTION_NAMES = ("idle", "run_left", "run_right", "jump", "leap_left", "leap_right")
ACTION_INDICES = tuple(ACTIONS.index(name) for name in ACTION_NAMES)
