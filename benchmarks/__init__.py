"""Measurements. Each runs real processes over real sockets and checks its results before it prints a figure."""
