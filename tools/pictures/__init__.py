"""The pictures of the documentation, each drawn by a module from the code that it is about."""
