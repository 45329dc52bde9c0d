"""The engine: reads the log, and turns each batch of it into effects and the next position in one transaction."""
