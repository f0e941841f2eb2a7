"""Time and memory on this machine: `eir bench`."""
