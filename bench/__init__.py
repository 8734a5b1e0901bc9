"""Benchmarks: each op and the reward stage against what users call today. Start with `python -m bench.run --list`."""
