"""Many measurements in one go: batches and matrices."""
