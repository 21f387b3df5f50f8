"""Checks of the machine before a launch."""
