"""How programs are compiled, and where they find memory."""
