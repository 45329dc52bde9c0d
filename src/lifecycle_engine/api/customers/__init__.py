"""Where customers stand and why, and what operators say of them."""
