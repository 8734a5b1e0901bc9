"""Ops on a GPU, with CUDA events."""
