"""A page on this machine to search an index by picture and by word, and to see why."""
