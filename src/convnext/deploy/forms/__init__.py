"""The forms of an exported network: the table of them, and how a file of each is opened without torch."""
