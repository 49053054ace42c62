"""Recordings by the thousand: finds bags, and runs them over processes or a cluster."""
