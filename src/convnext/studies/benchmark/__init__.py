"""How fast the network runs here: contenders in turn, each in a process of its own, beside what the machine can do."""
