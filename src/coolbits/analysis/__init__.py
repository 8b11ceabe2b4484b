"""Analyses that need no training: bytes of optimizer states, and what rounding a state does to an update."""
