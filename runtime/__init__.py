"""The run folder, whole files or none, and the person at the terminal."""
