"""What the benchmarks of reconstruction share: runs, baselines, scores, tables, pictures."""
