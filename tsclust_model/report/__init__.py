"""The page that tells people which segments there are and what each will need."""
