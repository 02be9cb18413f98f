"""One loop, one update path, and what they leave on the disk."""
