"""Reports on runs: tables, comparisons, pictures."""
