"""What the tests use of moto 5.2."""
