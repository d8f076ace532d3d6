"""Nights: `nights` tells the story; what one audits, and what it reports, beside it."""
