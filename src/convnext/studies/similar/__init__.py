"""The images nearest to one, by the cosine of their features: the search and its page."""
