"""The environments. Importing this package registers their ids with Gymnasium."""

from gymnasium.envs.registration import register

register(id="midas/StageTeacher-v0", entry_point="envs.stage.env:StageEnv")
register(id="midas/Stage-v0", entry_point="envs.world_env:WorldEnv")
