"""A web page and an HTTP API for students: slides in, probabilities, maps and patches out."""
