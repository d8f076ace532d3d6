"""CLaRa as a library: passages become latents, questions become cited answers."""
