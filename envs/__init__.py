"""The environments. Their ids are registered with Gymnasium by `midas_world`."""

from midas_world.packages import check_packages

check_packages("engine")
