"""What the tests use of tensorboard 2.21."""
