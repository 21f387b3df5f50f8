"""Whether a change of the engine's code is on the path that is measured."""
