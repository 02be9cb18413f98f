"""A trained network as a repository of the hub, with its card."""
