"""Compiled kernels behind the plain networks: same values, less time. The plain path always works without them."""
