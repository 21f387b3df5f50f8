"""Served numbers with proof: a guarded server, an open-loop client, and the checks that hold a load test together."""
