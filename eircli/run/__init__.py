"""A run laid out: its directory and record, its data set on demand, the models of its steps."""
