"""The reward stage as a whole, from solution strings to `ScoreBatch`."""
