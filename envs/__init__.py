"""The environments. Importing this package registers their ids with Gymnasium."""

from gymnasium.envs.registration import register

from midas_world.packages import check_packages

check_packages("engine")

register(id="midas/StageTeacher-v0", entry_point="envs.stage.env:StageEnv")
register(
    id="midas/Stage-v0",
    entry_point="envs.world.env:WorldEnv",
    vector_entry_point="envs.world.vector_env:WorldVectorEnv",
)
register(
    id="midas/DoomChase-v0",
    entry_point="envs.vizdoom_chase:DoomChaseEnv",
)
