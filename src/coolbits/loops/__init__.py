"""What every training loop needs, pretraining and others alike: when it diverged, what keeps it safe and is saved."""
