"""The sections of the report, each an answer to one question about a world."""
