"""anyspawn beside what one would use instead: speed, memory, and what each does when a program
misbehaves.
"""
