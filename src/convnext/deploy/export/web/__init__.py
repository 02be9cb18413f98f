"""A trained network as a folder that any web server serves: the browser answers, and images never leave it."""
