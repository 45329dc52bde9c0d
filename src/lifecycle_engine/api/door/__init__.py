"""What every request passes on its way in: the connection, its limits, its path and its body."""
