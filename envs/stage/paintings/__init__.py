"""The places of Stage, each painted once in neutral daylight, one module for each."""
