"""Types, errors, seeds, files, progress, shared by all subpackages. Imports no torch, except in `distributed`."""
