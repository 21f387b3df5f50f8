"""Measurements: a launch or a session becomes a record with numbers, if its verdict lets it."""
