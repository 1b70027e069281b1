"""The environments. Their ids are registered with Gymnasium by `midas_world`."""

from pkgutil import extend_path

from midas_world.packages import join_packages

# Beside a folder `envs` of another project, of which Python would find ours alone.
__path__ = extend_path(__path__, __name__)
join_packages("engine")
