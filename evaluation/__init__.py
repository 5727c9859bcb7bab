"""What "good" means, and how far a score can be believed."""
