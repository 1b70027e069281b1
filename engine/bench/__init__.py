"""How fast a world runs here, where the time goes, and how exact it is: ``midas-world bench``."""
