"""Several measurements in one command: batches and matrices."""
