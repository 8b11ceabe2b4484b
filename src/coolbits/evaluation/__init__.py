"""Evaluation: held-out loss a document, and lm-eval tasks with their samples, of base and quantized models alike."""
