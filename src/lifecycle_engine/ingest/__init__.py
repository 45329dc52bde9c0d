"""The way in: posted touchpoints are checked, given what the server adds, and appended to the log."""
