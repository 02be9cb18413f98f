"""`convnext serve`: trained networks behind HTTP. Needs the extra `serve`, and torch for runs alone."""
