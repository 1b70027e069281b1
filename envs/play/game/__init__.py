"""Playing a game: its steps, its threads and its past. Draws nothing."""
