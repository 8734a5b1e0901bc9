"""How the shipped checkpoints are made from nothing: the small CLIP, then the warm starts of the policies."""
