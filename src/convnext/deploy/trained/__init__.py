"""Runs and checkpoints, opened."""
