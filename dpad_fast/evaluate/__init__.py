"""Evaluation: sampling, masks, metrics, experiments (before, training, after) and their report."""
