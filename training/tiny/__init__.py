"""The small model: the library's own classes at small width, trained on toys from nothing."""
