"""Labels made elsewhere: read, found again among known frames, their units held against others."""
