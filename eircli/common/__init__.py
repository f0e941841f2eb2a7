"""The vocabulary of all rooms: types, errors, seeds, files, progress. Imports no torch."""
