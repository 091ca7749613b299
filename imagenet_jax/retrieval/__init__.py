"""Search among embedded images: the files of an index, exact and approximate neighbours, words, near duplicates, export."""
