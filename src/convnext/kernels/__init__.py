"""Compiled kernels behind the plain networks: same numbers, less time. The plain path always works without them."""
