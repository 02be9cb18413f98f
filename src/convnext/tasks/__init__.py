"""Where models, data and engine meet: one table of tasks, one road for all, and a folder for each with the same files."""
