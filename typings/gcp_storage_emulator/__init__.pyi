"""What the tests use of gcp-storage-emulator 2026.7."""
