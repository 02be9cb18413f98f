"""From disk to batch: where images come from, how they are decoded, checked, moved and handed to the network."""
