"""What is said on a stream, and its bytes."""
