"""Checks before a launch: what this machine lacks for it, and what would disturb the timing."""
