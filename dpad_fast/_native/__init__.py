"""Doors into the compiled extension that several folders of the package use; they import neither ops nor rewards."""
