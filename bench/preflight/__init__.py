"""Before a launch: what this machine lacks for it. During one: what disturbed it."""
