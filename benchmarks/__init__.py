"""anyspawn compared with its alternatives: speed, memory, and behaviour when a program
misbehaves.
"""
