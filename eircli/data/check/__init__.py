"""A data set read whole, and what is wrong or odd in it."""
