"""Optimizers, learning rates, weight-decay masks and moving averages."""
