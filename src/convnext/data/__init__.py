"""From disk to batch: where pictures come from, how they are decoded, checked, moved and handed to the network."""
