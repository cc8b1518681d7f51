"""How fast this machine is, part by part."""
