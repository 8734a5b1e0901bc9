"""`dpad-fast demo`: the settings, a queue of training processes, and what came out."""
