"""One self-contained HTML file about runs."""
