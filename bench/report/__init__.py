"""Reports: documents as text and pages. Nothing here computes a figure."""
