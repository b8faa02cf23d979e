"""Files out: one format a file, chosen by the suffix."""
