"""A tour of the workbench on the real engine: what a person would type, why, and how to read what comes out."""
