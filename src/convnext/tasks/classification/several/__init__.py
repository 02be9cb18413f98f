"""Classification where an image may have several labels, or none: the same file names as for one label each."""
