"""Training, evaluation and checkpoints; has no method-specific code."""
