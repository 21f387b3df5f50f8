"""Engines: find and describe one, spell its flags, build a command, launch it (always with a guard)."""
