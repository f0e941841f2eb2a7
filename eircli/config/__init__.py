"""Configuration: recipes, the manifest, schedules. Imports no torch."""
