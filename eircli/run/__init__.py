"""A run: its directory, record and lock, its data set on demand, the models and inputs of its steps."""
