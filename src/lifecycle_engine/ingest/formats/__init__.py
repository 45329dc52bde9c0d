"""What posters' clients speak, one module a format: each makes submissions of what it reads, and touches no log."""
