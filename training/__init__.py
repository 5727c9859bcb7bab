"""What the training loops are made of."""
