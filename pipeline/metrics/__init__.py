"""Metrics: one-pass accumulators with `update(prediction, truth)`, `merge(other)` and `result()`, without models."""
