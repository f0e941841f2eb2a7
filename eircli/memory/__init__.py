"""What is kept of old classes (candidates, selection, the bank, the kinds of memory), and instance replay."""
