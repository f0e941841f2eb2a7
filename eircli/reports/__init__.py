"""What can be said of runs: tables, comparisons, pictures."""
