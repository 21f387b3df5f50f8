"""A guided tour on the real engine: what to type, why, and how to read the output."""
