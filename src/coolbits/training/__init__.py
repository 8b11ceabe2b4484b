"""Training: the loop, its resumable state, and the stage that makes checkpoints.

Saved states and checkpoints are the same thing: a Hugging Face directory with the optimizer's tensors, what the loop
remembers, and the metrics so far. So a trajectory goes on from whichever is newest, and a branch from any checkpoint.
"""
