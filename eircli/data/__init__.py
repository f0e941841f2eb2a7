"""Data sets, class indices, step views."""
