"""Slow, plain restatements of the ops, one file each; used by tests and benchmarks and nothing else."""
