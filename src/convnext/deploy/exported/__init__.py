"""Files that were exported, opened without torch."""
