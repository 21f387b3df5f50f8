"""Which commit moved a number, or the pixels."""
