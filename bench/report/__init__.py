"""Reports: records to text for people. Nothing here computes a number."""
