"""Averages of checkpoints: soup, LAWA, weighted merge, EMA."""
