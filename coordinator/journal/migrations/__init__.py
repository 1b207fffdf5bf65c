"""How the tables came to be. Revisions that were released are never edited."""
