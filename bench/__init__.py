"""`python -m bench`: how fast Keyturn is, as ratios to what the same machine could do at best."""
