"""Checks against SGLang's own text: presets, log messages, its component suite."""
