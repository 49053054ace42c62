"""Compares the poses of two models, and measures every precision on this machine."""
