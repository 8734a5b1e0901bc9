"""Ops on the CPU: the inputs, and the peers that start from the same."""
