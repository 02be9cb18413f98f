"""Cross-validation: every image is held out once, by a network that has not learnt from it."""
