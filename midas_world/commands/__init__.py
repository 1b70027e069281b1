"""The command line: one verb per task, each thin over the room that does it."""
