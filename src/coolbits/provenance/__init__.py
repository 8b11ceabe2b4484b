"""Provenance: what a result was made from and by, whether it still is what it was, and what may go."""
