"""Run directories and the documents in them."""
