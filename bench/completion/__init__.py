"""Completion in the shell: what may stand where the cursor is. A TAB must not wait, so nothing heavy is imported."""
