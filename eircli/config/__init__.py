"""What a run is asked to do: recipes, the manifest, schedules. Imports no torch."""
