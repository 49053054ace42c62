"""The steps of every frame, in numpy and numba only: preprocess, heads, decode."""
