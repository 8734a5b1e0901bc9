"""Training targets from a mask: its box, and two points well inside it."""

from dpad_fast._mask_geometry import box_of, inscribed_points

__all__ = ["box_of", "inscribed_points"]
