"""What a classifier's answers rest on, image by image: drawings and their page."""
