"""What happens during long work, on a terminal."""
