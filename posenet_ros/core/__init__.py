"""What every frame goes through, in numpy and numba alone: preprocess, heads, decode."""
