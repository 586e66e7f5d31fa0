"""What a person looks at: one latent with all that is known of it, in a page and in a terminal."""
