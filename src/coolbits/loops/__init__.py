"""What every training loop needs, pretraining and others alike: when it diverged, and what keeps it safe."""
