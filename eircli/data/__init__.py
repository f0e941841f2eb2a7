"""Data sets, which classes their images hold, and what one step sees of them."""
