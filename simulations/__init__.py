"""Simulations of the statistics with data whose truth is known."""
