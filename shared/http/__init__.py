"""What both servers, the vendor and a deployed student, have between the socket and a route."""
