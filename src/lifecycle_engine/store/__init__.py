"""The record: tables, the one place where the two databases differ, and the questions that are put to them."""
