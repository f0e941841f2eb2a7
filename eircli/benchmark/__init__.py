"""What things cost on this machine: `eir bench`."""
