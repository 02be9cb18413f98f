"""Images with boxes, masks or a class for every pixel: read in four forms, checked, moved together, and batched."""
