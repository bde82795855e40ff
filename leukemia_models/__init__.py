"""Networks written from scratch, their training, and the judging of what they learned."""
