"""The served file, and everything that is made of its scores."""
