"""Recipes: what decides the bytes of each kind of artifact, resolved to plain values. One module a stage."""
