"""Other people's formats of weights."""
