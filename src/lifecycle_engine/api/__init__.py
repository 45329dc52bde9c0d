"""The HTTP application: who may ask, what is answered, and how an error is said."""
