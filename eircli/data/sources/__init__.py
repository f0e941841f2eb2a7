"""Public data sets from their sources: archives fetched, checked, unpacked, laid out."""
