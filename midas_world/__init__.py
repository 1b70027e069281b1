"""midas_world: the model of a learned game, its training and its evaluation.

Importing it registers the environments with Gymnasium, which reads no entry points by itself.
"""

from gymnasium.envs.registration import register

__version__ = "0.1.0"

# By names alone: what they stand for is imported when one is made.
register(id="midas/StageTeacher-v0", entry_point="midas_world.environments:StageEnv")
for _id in ("midas/Stage-v0", "midas/World-v0"):
    register(
        id=_id,
        entry_point="midas_world.environments:WorldEnv",
        vector_entry_point="midas_world.environments:WorldVectorEnv",
    )
for _task in ("coins", "care", "goal"):
    _name = f"midas/Stage{_task.capitalize()}"
    register(
        id=f"{_name}-v0",
        entry_point="midas_world.environments:WorldEnv",
        vector_entry_point="midas_world.environments:WorldVectorEnv",
        kwargs={"task": _task},
    )
    register(
        id=f"{_name}Teacher-v0",
        entry_point="midas_world.environments:StageEnv",
        kwargs={"task": _task},
    )
register(id="midas/DoomChase-v0", entry_point="midas_world.environments:DoomChaseEnv")
