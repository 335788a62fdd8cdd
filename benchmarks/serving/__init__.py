"""How fast the server is, beside other servers of the same graph and beside gRPC alone."""
