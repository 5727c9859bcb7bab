"""What a collection of recordings holds: checked, split, without leaks."""
