"""Shell completion: what may stand at the cursor. A Tab must answer at once, so nothing heavy is imported."""
