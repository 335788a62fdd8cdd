"""What a front end received, kept as SigMF: written as it comes, read, and received again."""
