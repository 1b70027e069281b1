"""Episodes: recorded play and training data, on disk and in shards."""
