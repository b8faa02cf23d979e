"""Runs a recipe: settings, steps, logs and checkpoints, on one processor or many machines."""
