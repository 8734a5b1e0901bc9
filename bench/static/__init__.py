"""Readers of the compiled GPU kernels."""
