"""How good models are: one against another, and every one on this machine."""
