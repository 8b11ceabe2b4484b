"""Tidy tables from measurements, and the figures drawn from them: one module a figure."""
