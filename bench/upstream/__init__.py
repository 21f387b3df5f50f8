"""Checks against SGLang's own text: presets, log messages, component suite."""
