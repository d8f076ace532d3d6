"""A large collection out of rows, and a worker of one thread that works off its nights."""
