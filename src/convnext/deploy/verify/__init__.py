"""What is whole, and what a network promises, measured again."""
