"""HTTP between the socket and a route, for both servers: the vendor and a deployed student."""
