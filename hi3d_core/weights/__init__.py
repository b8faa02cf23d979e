"""Checkpoint files: found, checked, read and written."""
