"""Where models, data and engine meet: one module or folder for each task."""
