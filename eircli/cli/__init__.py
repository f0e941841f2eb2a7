"""The command `eir`: parse and print."""
