"""What is known of an image apart from its pixels, and the identity of what is made of it."""
