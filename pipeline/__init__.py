"""Data in, results out: datasets, shards, training input, query cache, predictions, metrics, pictures."""
