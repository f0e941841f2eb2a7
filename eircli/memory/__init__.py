"""The instance bank: harvesting it, storing it, replaying from it."""
