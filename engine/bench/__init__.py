"""How fast a world runs here, where the time goes, and how fast it could: ``midas-world bench``."""
