"""Training, evaluation and checkpoints; knows nothing of continual learning."""
