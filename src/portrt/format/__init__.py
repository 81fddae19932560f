"""The file: manifest, archive, and edits of it. Imports no torch; a C++ reader mirrors it."""
